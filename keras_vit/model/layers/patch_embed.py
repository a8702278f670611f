import math

import keras
import numpy as np
from keras import layers, ops

from keras_vit.model.layers.batch_norm import BatchNorm

# With Keras's default of 0.99 the moving statistics lag behind in runs of some hundred steps: a 30-epoch
# run on 1,440 images lost nine points of test accuracy.
BATCH_NORM_MOMENTUM = 0.9
STEMS = ("linear", "conv")


@keras.saving.register_keras_serializable(package="keras_vit")
class PatchEmbed(layers.Layer):
    """Cuts images into patches and embeds each one.

    `stem="linear"` is the projection of Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929).
    `stem="conv"` is the convolutional stem of Xiao et al. 2021 (https://arxiv.org/abs/2106.14881):
    log2(patch_size) 3x3 convolutions of stride 2, each with batch norm and ReLU. It needs fewer images.
    The widths double up to `dim / 4`; the last convolution gives `dim`.

    Args:
        dim: width of a token.
        patch_size: side of a patch in pixels. With `stem="conv"` a power of two.
        stem: `"linear"` or `"conv"`.

    Input shape:
        `(batch, height, width, channels)`; height and width multiples of `patch_size`.

    Output shape:
        `(batch, height / patch_size * width / patch_size, dim)`, row by row.

    Example:
        >>> PatchEmbed(dim=64, patch_size=4)(keras.random.normal((2, 28, 28, 1))).shape
        (2, 49, 64)
    """

    def __init__(self, dim, patch_size, stem="linear", **kwargs):
        super().__init__(**kwargs)
        if dim < 1 or patch_size < 1:
            raise ValueError(
                f"dim and patch_size must be 1 or more. Received: dim={dim}, patch_size={patch_size}"
            )
        if stem not in STEMS:
            raise ValueError(f'stem must be "linear" or "conv". Received: stem={stem!r}')
        self.dim = dim
        self.patch_size = patch_size
        self.stem = stem
        if stem == "linear":
            self.projection = layers.Dense(dim, dtype=self.dtype_policy, name="projection")
        else:
            self.convolutions, self.norms = self._make_stem()

    def _make_stem(self):
        count = int(math.log2(self.patch_size))
        if count < 1 or 2**count != self.patch_size:
            raise ValueError(
                'stem="conv" halves the image at each layer, so patch_size must be 2, 4, 8, 16, ... '
                f"Received: patch_size={self.patch_size}"
            )
        if self.dim % 2**count:
            raise ValueError(
                f'stem="conv" with patch_size={self.patch_size} needs a dim that {2**count} divides. '
                f"Received: dim={self.dim}"
            )
        widths = [self.dim // 2 ** (count - i) for i in range(count - 1)] + [self.dim]
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
            for i in range(count)
        ]
        return convolutions, norms

    def build(self, input_shape):
        height, width, channels = input_shape[1:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"patch_size must divide the height and the width of the image. "
                f"Received: patch_size={self.patch_size}, image {height}x{width}"
            )
        self.grid = (height // self.patch_size, width // self.patch_size)
        if self.stem == "linear":
            self.projection.build((input_shape[0], math.prod(self.grid), self.patch_size**2 * channels))
            return
        shape = input_shape
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
            norm.build(shape)

    def call(self, images, training=None):
        if self.stem == "linear":
            return self.projection(self._cut(images))  # b n d
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
        config.update(dim=self.dim, patch_size=self.patch_size, stem=self.stem)
        return config


def resize_patch_kernel(kernel, patch_size, channels, new_patch_size):
    """The patch projection for another patch size, with the least change of what it computes.

    PI-resize of FlexiViT (Beyer et al. 2022, https://arxiv.org/abs/2212.08013, section 3.4): the kernel
    whose product with a resized patch is nearest to the old kernel's product with the patch itself. For
    a larger patch the products are equal.

    Args:
        kernel: (patch_size * patch_size * channels, dim), as in `PatchEmbed(stem="linear")`.
        patch_size: side of the patches the kernel is for.
        channels: channels of the images.
        new_patch_size: side of the patches wanted.

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
