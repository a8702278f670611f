"""Imports the backend without its lines about the hardware, and shares what it compiles."""

import contextlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"

UNUSED = ("sklearn", "matplotlib", "jax", "pandas")
"""What Keras and TensorFlow import where it is installed, for parts of theirs that no command uses.

Without the first three, `keras-vit predict` of one image takes 4.9 to 5.3 CPU seconds in place of 6.1 to 6.6;
without pandas too, 6.5 in place of 6.7, and on torch 7.5 in place of 9.0 (later, on a slower machine).
"""


def backend() -> str:
    """The backend that Keras will take, by the rules of Keras: the environment, its file, TensorFlow."""
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen:
        return chosen
    home = os.environ.get("KERAS_HOME")
    try:
        folder = Path(home) if home else Path.home() / ".keras"
        return str(json.loads((folder / "keras.json").read_text(encoding="utf-8"))["backend"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return "tensorflow"


def import_quietly(*modules: str, find_devices: bool = False) -> None:
    """Imports Keras, TensorFlow and these modules.

    TensorFlow writes lines about the hardware that no log level suppresses. A user who sets
    TF_CPP_MIN_LOG_LEVEL below 3 sees them.

    Args:
        *modules: imported after Keras and TensorFlow.
        find_devices: whether TensorFlow also searches for GPUs, about which it writes more lines. A process
            that has done that cannot be copied where there are GPUs.
    """
    warnings.filterwarnings("ignore", module=r"(keras|keras_tuner|tensorflow|jax|torch|tensorboard)\b.*")
    with _silent_stderr():
        with _hidden(UNUSED):
            import_module("keras")
            import_module("tensorflow")
        for module in modules:
            import_module(module)
        if find_devices:
            import tensorflow as tf

            from keras_vit.distribution.accelerators import keep_tensorflow_off_gpus

            tf.config.list_physical_devices()
            keep_tensorflow_off_gpus()


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drops what C++ code writes to stderr, unless the user has chosen to see it."""
    if os.environ.setdefault(LOG_LEVEL, "3") != "3":
        yield
        return
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


@contextlib.contextmanager
def _hidden(names: Iterable[str]) -> Iterator[None]:
    """Within it, these modules count as not installed, unless they have been imported or are the backend."""
    hidden = [name for name in names if name not in sys.modules and name != backend()]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, "") is None:
                del sys.modules[name]


def share_compilations(folder: str | Path) -> None:
    """Lets the processes that start from now on share what they compile.

    A promoted trial, for example, finds the programs of its first part.

    Args:
        folder: holds the compiled programs. Variables of the backends that are set already stay.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("TF_XLA_FLAGS", f"--tf_xla_persistent_cache_directory={folder}")
