"""For programs that stay with Keras 2: a layer round an exported bundle, and an importer of `.h5` weights.

`BundleLayer` runs in the Keras 2 program and imports no Keras 3. `load_h5_weights` runs in a Keras 3 program
and needs no Keras 2. So each is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {"BundleLayer": "bundle_layer", "load_h5_weights": "h5_weights"}

__all__ = ["BundleLayer", "load_h5_weights"]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_vit.serving.legacy' has no attribute {name!r}")
    value = getattr(import_module(f"keras_vit.serving.legacy.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__


if TYPE_CHECKING:
    from keras_vit.serving.legacy.bundle_layer import BundleLayer
    from keras_vit.serving.legacy.h5_weights import load_h5_weights
