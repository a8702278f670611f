"""Imports what all processes of a search need, without the backends' lines about the hardware."""

import gc
import logging
import os
import sys
import warnings


def share_compilations(cache: str) -> None:
    """Lets the processes to come share what they compile: a promoted trial finds its first part's programs.

    Args:
        cache: a folder. Whoever has set the backends' own variables keeps them.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("TF_XLA_FLAGS", f"--tf_xla_persistent_cache_directory={cache}")


def import_all() -> None:
    """Imports, and computes nothing: a process that has begun to compute cannot be copied."""
    warnings.filterwarnings("ignore", module=r"(keras|keras_tuner|tensorflow|jax|torch|tensorboard)\b.*")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import keras  # noqa: F401
        import tensorflow  # noqa: F401

        import keras_vit.training.run  # noqa: F401
        from keras_vit.search import ViTHyperband  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
    gc.collect()
    gc.freeze()  # copies need not look through all that was imported, at each trial
