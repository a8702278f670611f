"""For programs that stay with Keras 2: a layer for an exported bundle, and an importer of `.h5` weights.

`BundleLayer` runs in the Keras 2 program and imports no Keras 3. `load_h5_weights` runs in a Keras 3 program
and needs no Keras 2. So each is imported when it is first used.
"""

from typing import TYPE_CHECKING

from keras_vit.lazy import lazy_names

_HOMES = {"BundleLayer": "bundle_layer", "load_h5_weights": "h5_weights"}

__all__ = ["BundleLayer", "load_h5_weights"]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)

if TYPE_CHECKING:
    from keras_vit.serving.legacy.bundle_layer import BundleLayer
    from keras_vit.serving.legacy.h5_weights import load_h5_weights
