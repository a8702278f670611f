"""Which precision the hardware is fast in."""

import re
from typing import Any

import keras

from keras_vit.processor import processor_flags

AUTO = "auto"
FIRST_CAPABILITY = 8, 0
"""Of NVIDIA's GPUs, the first with fast products in bfloat16: Ampere."""


def precision_for(wanted: str) -> tuple[Any, str | None]:
    """The precision that a setting stands for on this machine, and a line that says why where it is "auto".

    On CPUs, XLA does products in bfloat16 without AMX: at 72 to 90 GFLOP/s where float32 has 129. So
    TensorFlow and JAX take float32 there.

    Args:
        wanted: a name of Keras's dtype policies, or `"auto"`.
    """
    if wanted != AUTO:
        return wanted, None
    is_fast, reason = _bfloat16()
    chosen = "mixed_bfloat16" if is_fast else "float32"
    return chosen, f"precision: {chosen} ({reason}); --precision chooses another"


def _bfloat16() -> tuple[bool, str]:
    """Whether bfloat16 is fast here, and the reason."""
    backend = keras.backend.backend()
    capabilities = _capabilities(backend)
    if capabilities:  # devices that share a batch wait for the slowest
        least = min(capabilities)
        found = "a GPU of compute capability {}.{}, bfloat16 needs 8.0".format(*least)
        return least >= FIRST_CAPABILITY, found
    if backend != "torch":
        return False, f"{backend} is not faster in bfloat16 without such a GPU"
    has_amx = "amx_bf16" in processor_flags()  # where it is not known, no
    return has_amx, f"a processor {'with' if has_amx else 'without'} AMX for bfloat16"


def _capabilities(backend: str) -> list[tuple[int, int]]:
    """(major, minor) of each GPU of NVIDIA that the backend sees."""
    found: list[str] = []
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            return [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]
    elif backend == "jax":
        import jax

        found = [getattr(device, "compute_capability", "") for device in jax.local_devices()]
    else:
        import tensorflow as tf

        for device in tf.config.list_physical_devices("GPU"):
            details = tf.config.experimental.get_device_details(device)
            found.append(".".join(map(str, details.get("compute_capability", ()))))
    pairs = [re.match(r"(\d+)\.(\d+)", str(text)) for text in found]
    return [(int(pair[1]), int(pair[2])) for pair in pairs if pair]
