"""The machine of a figure, in one line."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("keras", "tensorflow", "jax", "torch", "vit-pytorch", "timm", "transformers", "keras-hub")
FAST_PRODUCTS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


def machine() -> str:
    """The processor, what it has for products, its cores, and the versions."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    lines = {key.strip(): value.strip() for key, value in lines.items()}
    name = lines.get("model name", platform.processor() or platform.machine())
    has = [one for one in FAST_PRODUCTS if one in lines.get("flags", "").split()]
    found = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"{name} ({', '.join(has)}), {os.cpu_count()} cores, Python {platform.python_version()}, {found}"
