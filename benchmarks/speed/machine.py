"""The machine of a figure, in one line."""

import os
import platform
from importlib.metadata import version

from keras_vit.processor import processor, processor_flags

PACKAGES = ("keras", "tensorflow", "jax", "torch", "vit-pytorch", "timm", "transformers", "keras-hub")
FAST_PRODUCTS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


def machine() -> str:
    """The processor, what it has for products, its cores, and the versions."""
    name = processor().get("model name", platform.processor() or platform.machine())
    has = [one for one in FAST_PRODUCTS if one in processor_flags()]
    found = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"{name} ({', '.join(has)}), {os.cpu_count()} cores, Python {platform.python_version()}, {found}"
