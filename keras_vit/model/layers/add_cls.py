from typing import Any

import keras
from keras import ops

from keras_vit.model.config import check_fields
from keras_vit.model.layers.base import ViTLayer


@keras.saving.register_keras_serializable(package="keras_vit")
class AddCLS(ViTLayer):
    """Puts the class token, and registers, before the patch tokens.

    The class token is BERT's, as in Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929). Registers
    are Darcet et al. 2023 (https://arxiv.org/abs/2309.16588): free tokens that keep global information
    out of the patch tokens. The distillation token is that of DeiT (Touvron et al. 2021,
    https://arxiv.org/abs/2012.12877).

    Args:
        use_cls: whether there is a class token. Without one the layer adds registers only.
        num_registers: number of registers, after the class token and the distillation token.
        use_distilled: whether there is a distillation token, after the class token.

    Input shape:
        `(batch, patches, dim)`.

    Output shape:
        `(batch, use_cls + use_distilled + num_registers + patches, dim)`, in this order. A mask
        of the patches becomes one of all tokens.

    Example:
        >>> AddCLS(num_registers=4)(keras.random.normal((2, 49, 64))).shape
        (2, 54, 64)
    """

    def __init__(
        self, use_cls: bool = True, num_registers: int = 0, use_distilled: bool = False, **kwargs: Any
    ):
        super().__init__(**kwargs)
        check_fields(num_registers=num_registers)
        if not use_cls and not use_distilled and num_registers == 0:
            raise ValueError("AddCLS must add something. Received: use_cls=False, num_registers=0")
        self.use_cls = use_cls
        self.num_registers = num_registers
        self.use_distilled = use_distilled
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self.supports_masking = True

    @property
    def num_added(self) -> int:
        """Number of tokens that the layer adds."""
        return int(self.use_cls) + int(self.use_distilled) + self.num_registers

    def build(self, input_shape):
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: input_shape[-1]})
        self.tokens = self.add_weight(
            shape=(1, self.num_added, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="tokens",
        )

    def call(self, patches):
        shape = (ops.shape(patches)[0], self.num_added, patches.shape[-1])
        tokens = ops.broadcast_to(ops.cast(self.tokens, patches.dtype), shape)  # b k d
        return ops.concatenate([tokens, patches], axis=1)  # b k+n d

    def compute_mask(self, inputs, previous_mask=None):
        if previous_mask is None:
            return None
        mask = ops.cast(previous_mask, "bool")
        added = ops.repeat(ops.ones_like(mask[:, :1]), self.num_added, axis=1)
        return ops.concatenate([added, mask], axis=1)  # b k+n

    def compute_output_shape(self, input_shape):
        batch, patches, dim = input_shape
        return (batch, None if patches is None else self.num_added + patches, dim)

    def get_config(self):
        config = super().get_config()
        config.update(
            use_cls=self.use_cls, num_registers=self.num_registers, use_distilled=self.use_distilled
        )
        return config
