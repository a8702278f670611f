"""`keras-vit --version`"""

import json
import os
import platform
from pathlib import Path

from keras_vit.process.versions import installed_versions

PACKAGES = ("keras", "tensorflow", "jax", "torch", "keras-tuner")


def versions() -> list[str]:
    """One line per version that a report of an error needs; nothing is imported for it."""
    found = installed_versions(*PACKAGES)
    lines = [f"keras-vit {found.pop('keras_vit')}"]
    lines += [f"{name} {number}" for name, number in found.items()]
    return [*lines, f"Python {platform.python_version()}", f"backend {backend()}"]


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
