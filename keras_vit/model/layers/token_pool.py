from typing import Any

import keras
from keras import layers

from keras_vit.errors import InputError
from keras_vit.model.layers.base import ViTLayer


@keras.saving.register_keras_serializable(package="keras_vit")
class TokenPool(ViTLayer):
    """Takes one token of each image: the class token, as in Dosovitskiy et al. 2020.

    https://arxiv.org/abs/2010.11929. It is `pooling="token"` of `ViT`.

    Args:
        index: of the token; `AddCLS` puts the class token at 0 and the distillation token at 1.

    Input shape:
        `(batch, tokens, dim)`.

    Output shape:
        `(batch, dim)`.

    Example:
        >>> TokenPool()(keras.random.normal((2, 50, 64))).shape
        (2, 64)
    """

    def __init__(self, index: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.index = index
        self.input_spec = layers.InputSpec(ndim=3)
        self.supports_masking = True
        self.built = True

    def call(self, tokens):
        self._check(tokens.shape[1])
        return tokens[:, self.index]  # b d

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def _check(self, tokens):
        # JAX would take the last token in place of one that is not there.
        if isinstance(tokens, int) and not -tokens <= self.index < tokens:
            raise InputError(f"index must be that of a token. Received: index={self.index}, {tokens} tokens")

    def compute_output_shape(self, input_shape):
        self._check(input_shape[1])
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "index": self.index}
