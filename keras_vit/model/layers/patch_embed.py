import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_vit.model.config import (
    NORM_EPSILON,
    Stem,
    check_fields,
    check_grid,
    check_patch_options,
    conv_stem_widths,
)
from keras_vit.model.layers.base import ViTLayer
from keras_vit.model.layers.batch_norm import BatchNorm

# With the default of Keras, 0.99, the moving statistics lag behind in runs of some hundred steps: a 30-epoch
# run on 1,440 images lost nine points of test accuracy.
BATCH_NORM_MOMENTUM = 0.9


@keras.saving.register_keras_serializable(package="keras_vit")
class PatchEmbed(ViTLayer):
    """Cuts images into patches and embeds each one.

    `stem="linear"` is the projection of Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929).
    `stem="conv"` is the convolutional stem of Xiao et al. 2021 (https://arxiv.org/abs/2106.14881):
    log2(patch_size) 3x3 convolutions of stride 2, each with batch norm and ReLU. It needs fewer images. The
    widths double up to `dim / 4`; the last convolution gives `dim`.

    Args:
        dim: width of a token.
        patch_size: side of a patch in pixels. With `stem="conv"` a power of two.
        stem: `"linear"` or `"conv"`.
        patch_bias: whether the linear projection has a bias. Radford et al. 2021 (CLIP,
            https://arxiv.org/abs/2103.00020) have none.
        patch_norm: whether layer normalisations stand before and after the linear projection: the dual
            PatchNorm of Kumar et al. 2023 (https://arxiv.org/abs/2302.01327), which vit-pytorch has too.
        norm_epsilon: what these add to the variance.

    Input shape:
        `(batch, height, width, channels)`; height and width multiples of `patch_size`.

    Output shape:
        `(batch, height / patch_size * width / patch_size, dim)`, row by row.

    Example:
        >>> PatchEmbed(dim=64, patch_size=4)(keras.random.normal((2, 28, 28, 1))).shape
        (2, 49, 64)
    """

    def __init__(
        self,
        dim: int,
        patch_size: int,
        stem: Stem = "linear",
        patch_bias: bool = True,
        patch_norm: bool = False,
        norm_epsilon: float = NORM_EPSILON,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_fields(
            dim=dim,
            patch_size=patch_size,
            stem=stem,
            patch_bias=patch_bias,
            patch_norm=patch_norm,
            norm_epsilon=norm_epsilon,
        )
        check_patch_options(stem, patch_bias, patch_norm)
        self.dim = dim
        self.patch_size = patch_size
        self.stem = stem
        self.patch_bias = patch_bias
        self.patch_norm = patch_norm
        self.norm_epsilon = norm_epsilon
        dtype = self.dtype_policy
        self.norm_before: Any = None
        self.norm_after: Any = None
        if stem == "conv":
            self.convolutions, self.norms = self._make_stem()
            return
        # In the order of use, which is that of the weights.
        norm = dict(epsilon=norm_epsilon, dtype=dtype)
        if patch_norm:
            self.norm_before = layers.LayerNormalization(**norm, name="patch_norm")
        self.projection = layers.Dense(dim, use_bias=patch_bias, dtype=dtype, name="projection")
        if patch_norm:
            self.norm_after = layers.LayerNormalization(**norm, name="embedding_norm")

    def _make_stem(self):
        widths = conv_stem_widths(self.dim, self.patch_size)
        convolutions = [
            layers.Conv2D(
                width,
                3,
                strides=2,
                padding="same",
                use_bias=False,  # the batch norm that follows has one
                kernel_initializer="he_normal",
                dtype=self.dtype_policy,
                name=f"conv_{i}",
            )
            for i, width in enumerate(widths)
        ]
        norms = [
            BatchNorm(momentum=BATCH_NORM_MOMENTUM, dtype=self.dtype_policy, name=f"batch_norm_{i}")
            for i in range(len(widths))
        ]
        return convolutions, norms

    def parts(self) -> dict[str, layers.Layer]:
        """The layers inside by name, in the order of use.

        Not a property: Keras saves weights under the first attribute, by the alphabet, that holds layers.
        """
        if self.stem == "conv":
            pairs = zip(self.convolutions, self.norms, strict=True)
            return {part.name: part for pair in pairs for part in pair}
        found = (self.norm_before, self.projection, self.norm_after)
        return {part.name: part for part in found if part is not None}

    def build(self, input_shape):
        height, width, channels = input_shape[1:]
        check_grid((height, width, channels), self.patch_size)
        self.grid = (height // self.patch_size, width // self.patch_size)
        if self.stem == "linear":
            shape = (input_shape[0], math.prod(self.grid), self.patch_size**2 * channels)
            self.projection.build(shape)
            if self.patch_norm:
                self.norm_before.build(shape)
                self.norm_after.build((*shape[:-1], self.dim))
            return
        shape = input_shape
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
            norm.build(shape)

    def call(self, images, training=None):
        if self.stem == "linear":
            x = self._cut(images)  # b n (p p c)
            if self.patch_norm:
                return self.norm_after(self.projection(self.norm_before(x)))  # b n d
            return self.projection(x)  # b n d
        x = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = ops.relu(norm(convolution(x), training=training))  # b h/2 w/2 c
        return ops.reshape(x, (-1, math.prod(self.grid), self.dim))  # b n d

    def _cut(self, images):
        # A matrix product over cut patches is a convolution with stride = kernel size, and faster on CPUs.
        (rows, columns), p = self.grid, self.patch_size
        channels = images.shape[-1]
        x = ops.reshape(images, (-1, rows, p, columns, p, channels))  # b r p s p c
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # b r s p p c
        return ops.reshape(x, (-1, rows * columns, p * p * channels))  # b n (p p c)

    def compute_output_shape(self, input_shape):
        height, width = input_shape[1:3]
        return (input_shape[0], (height // self.patch_size) * (width // self.patch_size), self.dim)

    def get_config(self):
        config = super().get_config()
        config.update(
            dim=self.dim,
            patch_size=self.patch_size,
            stem=self.stem,
            patch_bias=self.patch_bias,
            patch_norm=self.patch_norm,
            norm_epsilon=self.norm_epsilon,
        )
        return config


def resize_patch_kernel(kernel: Any, patch_size: int, channels: int, new_patch_size: int) -> np.ndarray:
    """The patch projection for another patch size, with the least change of what it computes.

    PI-resize of FlexiViT (Beyer et al. 2022, https://arxiv.org/abs/2212.08013, section 3.4): the product of
    the new kernel with a resized patch is as near as possible to that of the old kernel with the patch
    itself. For a larger patch the products are equal.

    Args:
        kernel: (patch_size * patch_size * channels, dim), as in `PatchEmbed(stem="linear")`.
        patch_size: side of the patches that the kernel is for.
        channels: channels of the images.
        new_patch_size: side of the new patches.

    Returns:
        float32 numpy array (new_patch_size * new_patch_size * channels, dim).
    """
    kernel = np.asarray(kernel, dtype="float64")
    if kernel.ndim != 2 or kernel.shape[0] != patch_size**2 * channels:
        raise ValueError(
            "kernel must be (patch_size * patch_size * channels, dim). "
            f"Received: {kernel.shape} for patch_size={patch_size}, channels={channels}"
        )
    # Column i is the i-th unit patch, resized: the resize as a matrix.
    units = np.eye(patch_size**2, dtype="float32").reshape(-1, patch_size, patch_size, 1)
    resized = ops.image.resize(
        units, (new_patch_size, new_patch_size), "bilinear", data_format="channels_last"
    )
    matrix = ops.convert_to_numpy(resized).reshape(patch_size**2, new_patch_size**2).T.astype("float64")
    flat = kernel.reshape(patch_size**2, -1)  # (p p) (c d)
    new = np.linalg.pinv(matrix.T) @ flat  # (q q) (c d)
    return new.reshape(new_patch_size**2 * channels, -1).astype("float32")
