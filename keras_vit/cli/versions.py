"""`keras-vit --version`"""

import platform

from keras_vit.process.backend import backend
from keras_vit.process.versions import installed_versions

PACKAGES = ("keras", "tensorflow", "jax", "torch", "keras-tuner")


def versions() -> list[str]:
    """One line per version that a report of an error needs; nothing is imported for it."""
    found = installed_versions(*PACKAGES)
    lines = [f"keras-vit {found.pop('keras_vit')}"]
    lines += [f"{name} {number}" for name, number in found.items()]
    return [*lines, f"Python {platform.python_version()}", f"backend {backend()}"]
