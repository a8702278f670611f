"""What the compilers of TensorFlow and JAX make, kept in the user's cache folder for later commands.

TensorFlow fails on a damaged file of its cache, and neither library knows that a program was made for another
processor, where it may end the process (SIGILL). So a command works on a folder of its own: it begins with
copies of the kept programs of this machine, each checked by its SHA-256, and at its end the new ones are put
beside the kept ones. Two commands at the same time do not see each other's folder.

It saves 6 of 15 CPU seconds until TensorFlow has trained and judged its first batches, and 4 of 10 for one
image on JAX.
"""

import atexit
import contextlib
import os
import re
import shutil
import sys
from hashlib import sha256
from pathlib import Path

from keras_vit.cache import (
    COMPILED,
    cache_folder,
    compiled_files,
    evict,
    hash_of,
    largest_bytes,
    program_name,
)
from keras_vit.errors import InputError
from keras_vit.files import is_work_name, make_folder, whole_file, work_name
from keras_vit.locks import remove
from keras_vit.process.backend import backend
from keras_vit.process.versions import installed_versions
from keras_vit.processor import kind_of_processor

MOST_BYTES = 256 * 2**20
"""Of all kept programs together: a training run makes about 6 MB."""

LEAST_FREE = 2**30
"""Bytes that the disk must have free: a full one would stop TensorFlow, which writes there."""

VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "TF_XLA_FLAGS")
PACKAGES = {"tensorflow": ("tensorflow", "keras"), "jax": ("jax", "jaxlib", "keras")}
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd")
"""TensorFlow's programs do not tell for which GPU they are."""


def keep_compilations() -> None:
    """Lets this command use the kept programs, and keeps those that it makes; before Keras is imported.

    Nothing is kept where the folder cannot be used, where the user has set a cache of the backend, on torch,
    or on Windows, which cannot lock a folder.
    """
    name = backend()
    if sys.platform == "win32":
        return
    if name not in PACKAGES or is_imported(name) or any(os.environ.get(variable) for variable in VARIABLES):
        return
    if name == "tensorflow" and any(map(os.path.exists, GPU_FILES)):
        return
    with contextlib.suppress(OSError, InputError):
        most = min(MOST_BYTES, largest_bytes())
        kept = cache_folder().absolute() / COMPILED / machine(name)
        if most and not re.search(r"\s", str(kept)):
            work = _begin(kept)
            atexit.register(_end, kept, work, most, os.getpid())
            if name == "jax":
                os.environ["JAX_COMPILATION_CACHE_DIR"] = str(work)
                os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
                # Or JAX puts the path of the folder, which belongs to this command alone, into the hash by
                # which it finds a program, and finds none.
                os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")
            else:
                os.environ["TF_XLA_FLAGS"] = f"--tf_xla_persistent_cache_directory={work}"


def is_imported(name: str) -> bool:
    """Whether it is too late: a backend reads its settings when it is imported."""
    return name in sys.modules


def machine(name: str) -> str:
    """A hash of all that the programs of a backend depend on beside their source."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    versions = installed_versions(*PACKAGES[name])
    return hash_of(
        name, str(versions), *kind_of_processor(), str(len(cores)), os.environ.get("XLA_FLAGS", "")
    )[:16]


def _begin(kept: Path) -> Path:
    """A folder for this command, with copies of the kept programs that are whole."""
    make_folder(kept.parent)
    if shutil.disk_usage(kept.parent).free < LEAST_FREE:
        raise OSError("not enough space")
    for path in kept.parent.iterdir():
        if is_work_name(path.name):
            _remove_dead(path)
    work = kept.with_name(work_name(kept.name))
    work.mkdir(mode=0o700)
    _hold(work)
    for path in compiled_files(kept):
        name, digest = program_name(path)
        content = path.read_bytes()
        if sha256(content).hexdigest() == digest:
            (work / name).write_bytes(content)
            os.utime(work / name, (0, 0))  # reading it sets the first of these times
        else:
            path.unlink(missing_ok=True)
    return work


def _end(kept: Path, work: Path, most: int, process: int) -> None:
    """Keeps what this command has compiled, and removes its folder."""
    if os.getpid() != process:  # a copy of the command
        return
    with contextlib.suppress(OSError, InputError):
        known = {program_name(path)[0]: path for path in compiled_files(kept)}
        make_folder(kept)
        for path in work.iterdir():
            if path.name not in known:
                content = path.read_bytes()
                with whole_file(kept / f"{path.name}.{sha256(content).hexdigest()}", "wb") as file:
                    file.write(content)
            elif path.stat().st_atime:
                os.utime(known[path.name])  # it was used now
        evict(compiled_files(kept.parent), most)
    remove(work)


def _hold(work: Path) -> None:
    """Locks a folder until this process has ended, however it ends."""
    import fcntl

    fcntl.flock(os.open(work, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_dead(work: Path) -> None:
    """Removes a folder that a command has left that was killed."""
    import fcntl

    opened = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(work)
    except BlockingIOError:
        pass
    finally:
        os.close(opened)
