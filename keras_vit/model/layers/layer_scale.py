from typing import Any

import keras

from keras_vit.model.layers.base import ViTLayer


@keras.saving.register_keras_serializable(package="keras_vit")
class LayerScale(ViTLayer):
    """Multiplies each channel of a residual branch by a learned weight that starts near 0.

    Touvron et al. 2021 (https://arxiv.org/abs/2103.17239). It makes deep models trainable.

    Args:
        initial_value: of each weight.

    Input shape:
        `(..., dim)`.

    Output shape:
        The input shape.

    Example:
        >>> LayerScale(1e-5)(keras.random.normal((2, 50, 64))).shape
        (2, 50, 64)
    """

    def __init__(self, initial_value: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        self.initial_value = initial_value
        self._is_loaded_by_block = False
        self.supports_masking = True

    def build(self, input_shape):
        self.input_spec = keras.layers.InputSpec(min_ndim=1, axes={-1: input_shape[-1]})
        self.scale = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_value),
            name="scale",
        )

    def call(self, x):
        return x * self.scale  # ... d

    def compute_output_shape(self, input_shape):
        return input_shape

    def load_own_variables(self, store):
        is_loaded, self._is_loaded_by_block = self._is_loaded_by_block, False
        if store.keys() or not is_loaded:
            super().load_own_variables(store)

    def load_from_block(self, value: Any) -> None:
        """Loads the weight from a file of version 0.1.0, which keeps it among those of the block.

        Keras then asks the layer to load its own weight, which such a file does not have.
        """
        super().load_own_variables({"0": value})
        self._is_loaded_by_block = True

    def get_config(self):
        return {**super().get_config(), "initial_value": self.initial_value}
