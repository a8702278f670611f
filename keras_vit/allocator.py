"""How the C library keeps memory that was freed, which XLA and torch ask for again at every step."""

import contextlib
import ctypes
import os
import platform
import sys
from pathlib import Path

# The numbers that glibc's malloc.h gives these settings.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT = 1 << 30
"""Bytes. Larger pieces still go back to the system when they are freed."""


def keep_freed_memory(backend: str) -> bool:
    """Lets malloc keep what a training step frees, in place of asking the system for it at each step.

    The system clears each page that it hands out. A step of `defect/4` on JAX took 32,000 new pages, and 47 %
    of its time; without them it is 1.8 times as fast, and on torch 1.07 times. TensorFlow keeps its memory
    itself. Freed memory, 1 GB at most per piece, stays with the process.

    JAX computes in threads of its own, and only glibc's main arena can hold large pieces. So there all
    threads use that one; it must be set before any thread has got another. Keras on JAX imports pyarrow where
    it is installed, whose thread has one: if Keras was imported before keras_vit, threads take turns with
    both arenas, and which steps gain is chance.

    Nothing is changed where the user has set malloc in the environment (`MALLOC_...`, or `GLIBC_TUNABLES`
    with `glibc.malloc`), on machines with an NVIDIA GPU, on other systems than Linux, or without glibc.

    Args:
        backend: of Keras.

    Returns:
        Whether it was set.
    """
    chosen = {"torch": (), "jax": (M_ARENA_MAX,)}.get(backend)
    if chosen is None or _set_by_user() or not sys.platform.startswith("linux"):
        return False
    if platform.libc_ver()[0] != "glibc" or Path("/dev/nvidia0").exists():
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        values = {M_TRIM_THRESHOLD: KEPT, M_MMAP_THRESHOLD: KEPT, **dict.fromkeys(chosen, 1)}
        return all(mallopt(name, value) for name, value in values.items())
    return False


def _set_by_user() -> bool:
    own = any(name.startswith("MALLOC_") for name in os.environ)
    return own or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
