"""Whether this process computes on a GPU or a TPU, and that TensorFlow leaves it to the backend."""

import contextlib


def has_accelerator() -> bool:
    """Whether the current backend finds a device other than the processors."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return any(device.device_type in ("GPU", "TPU") for device in tf.config.list_physical_devices())
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    return False


def keep_tensorflow_off_gpus() -> None:
    """Hides the GPUs from TensorFlow where the backend is another: there it only reads and prepares images.

    By default TensorFlow takes the memory of all GPUs at its first operation, and JAX 75 % of it: whoever is
    second fails. Call it before that operation; where the program has used TensorFlow already, nothing
    changes.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        return
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # its devices are in use
        if tf.config.list_physical_devices("GPU"):
            tf.config.set_visible_devices([], "GPU")
