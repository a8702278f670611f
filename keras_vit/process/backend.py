"""Imports the backend without its lines about the hardware, and shares what it compiles."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


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
        for module in ("keras", "tensorflow", *modules):
            import_module(module)
        if find_devices:
            import tensorflow as tf

            tf.config.list_physical_devices()


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


def share_compilations(folder: str | Path) -> None:
    """Lets the processes that start from now on share what they compile.

    A promoted trial, for example, finds the programs of its first part.

    Args:
        folder: holds the compiled programs. Variables of the backends that are set already stay.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("TF_XLA_FLAGS", f"--tf_xla_persistent_cache_directory={folder}")
