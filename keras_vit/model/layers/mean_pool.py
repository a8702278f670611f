from typing import Any

import keras
from keras import layers, ops

from keras_vit.errors import InputError
from keras_vit.model.config import check_as
from keras_vit.model.layers.base import ViTLayer
from keras_vit.model.layers.masks import attention_mask_of


@keras.saving.register_keras_serializable(package="keras_vit")
class MeanPool(ViTLayer):
    """Takes the mean of the patch tokens of each image, as Zhai et al. 2021 do.

    https://arxiv.org/abs/2106.04560. It is `pooling="gap"` of `ViT`.

    Args:
        num_prefix_tokens: number of tokens before those of the patches, which it leaves out: the class token,
            the distillation token and the registers that `AddCLS` adds.

    Call arguments:
        mask: `(batch, tokens)`, False for tokens that it leaves out; Keras passes the mask of the input here.

    Input shape:
        `(batch, tokens, dim)`.

    Output shape:
        `(batch, dim)`.

    Example:
        >>> MeanPool(num_prefix_tokens=1)(keras.random.normal((2, 50, 64))).shape
        (2, 64)
    """

    def __init__(self, num_prefix_tokens: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        check_as("num_registers", num_prefix_tokens=num_prefix_tokens)
        self.num_prefix_tokens = num_prefix_tokens
        self.input_spec = layers.InputSpec(ndim=3)
        self.supports_masking = True
        self.built = True

    def call(self, tokens, mask=None):
        check_left(tokens.shape[1], self.num_prefix_tokens)
        patches = tokens[:, self.num_prefix_tokens :]  # b n d
        if mask is None:
            return ops.mean(patches, axis=1)  # b d
        attention_mask_of(mask, tokens=tokens.shape[1])  # refuses one of other tokens
        weights = ops.cast(mask, patches.dtype)[:, self.num_prefix_tokens :, None]  # b n 1
        # An image without any token gets zeros.
        return ops.divide_no_nan(ops.sum(patches * weights, axis=1), ops.sum(weights, axis=1))

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, input_shape):
        check_left(input_shape[1], self.num_prefix_tokens)
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "num_prefix_tokens": self.num_prefix_tokens}


def check_left(tokens: Any, num_prefix_tokens: int) -> None:
    """Refuses tokens of which none is left; a number that is not known passes."""
    if isinstance(tokens, int) and tokens <= num_prefix_tokens:
        raise InputError(
            "num_prefix_tokens must leave a token to pool. "
            f"Received: num_prefix_tokens={num_prefix_tokens}, {tokens} tokens"
        )
