import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_vit.errors import InputError
from keras_vit.model.arguments import whole
from keras_vit.model.config import (
    NORM_EPSILON,
    Stem,
    check_fields,
    check_grid,
    check_patch_options,
    conv_stem_widths,
    patch_sides,
)
from keras_vit.model.layers.batch_norm import BatchNorm
from keras_vit.model.layers.kernels import Given, KernelLayer
from keras_vit.model.layers.sizes import refused_unless_equal

# With the default of Keras, 0.99, the moving statistics lag behind in runs of some hundred steps: a 30-epoch
# run on 1,440 images lost nine points of test accuracy.
BATCH_NORM_MOMENTUM = 0.9


@keras.saving.register_keras_serializable(package="keras_vit")
class PatchEmbed(KernelLayer):
    """Cuts images into patches and embeds each one.

    `stem="linear"` is the projection of Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929).
    `stem="conv"` is the convolutional stem of Xiao et al. 2021 (https://arxiv.org/abs/2106.14881):
    log2(patch_size) 3x3 convolutions of stride 2, each with batch norm and ReLU. It needs fewer images. The
    widths double up to `dim / 4`; the last convolution gives `dim`.
    `stem="conv-pool"` has convolutions of stride 1, each followed by batch norm, ReLU and the maximum of 2x2
    pixels; their widths double up to `dim`.

    The weights fit images of any size whose sides the patches divide.

    Args:
        dim: width of a token.
        patch_size: side of a patch in pixels, or (height, width). Of a stem of convolutions a power of two.
        stem: `"linear"`, `"conv"` or `"conv-pool"`.
        patch_bias: whether the linear projection has a bias. Radford et al. 2021 (CLIP,
            https://arxiv.org/abs/2103.00020) have none.
        patch_norm: whether layer normalisations stand before and after the linear projection: the dual
            PatchNorm of Kumar et al. 2023 (https://arxiv.org/abs/2302.01327), which vit-pytorch has too.
        norm_epsilon: what these add to the variance.
        feature_map: whether the output is a map of (rows, columns) in place of a sequence of tokens.
        data_format: `"channels_last"` or `"channels_first"`; `None` means that of
            `keras.config.image_data_format()`.
        kernel_initializer: of the projection or the convolutions; `None` means `"glorot_uniform"` for the
            one and `"he_normal"` for the others.
        kernel_regularizer: of the same kernels.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` with
        `data_format="channels_first"`. Height and width are multiples of those of a patch, and may be
        `None`. Pixels may be whole numbers.

    Output shape:
        `(batch, rows * columns, dim)`, row by row, with `rows = height / patch height` and so on; with
        `feature_map=True` it is `(batch, rows, columns, dim)`.

    Raises:
        InputError: an argument is not one of the allowed values, or the patches do not divide an image.

    Example:
        >>> PatchEmbed(dim=64, patch_size=4)(keras.random.normal((2, 28, 28, 1))).shape
        (2, 49, 64)
    """

    def __init__(
        self,
        dim: int,
        patch_size: int | Sequence[int],
        stem: Stem = "linear",
        patch_bias: bool = True,
        patch_norm: bool = False,
        norm_epsilon: float = NORM_EPSILON,
        feature_map: bool = False,
        data_format: str | None = None,
        kernel_initializer: Given = None,
        kernel_regularizer: Given = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_fields(dim=dim, stem=stem, patch_bias=patch_bias, patch_norm=patch_norm)
        check_fields(norm_epsilon=norm_epsilon)
        check_patch_options(stem, patch_bias, patch_norm)
        if data_format not in (None, "channels_last", "channels_first"):
            raise InputError(
                'data_format must be "channels_last", "channels_first" or None. '
                f"Received: data_format={data_format!r}"
            )
        self.dim = dim
        self.patch_size = _checked_patch_size(patch_size)
        self.stem = stem
        self.patch_bias = patch_bias
        self.patch_norm = patch_norm
        self.norm_epsilon = norm_epsilon
        self.feature_map = feature_map
        self.data_format = data_format or keras.config.image_data_format()
        self._set_kernels(kernel_initializer, kernel_regularizer)
        self.input_spec = layers.InputSpec(ndim=4)
        dtype = self.dtype_policy
        self.norm_before: Any = None
        self.norm_after: Any = None
        if stem != "linear":
            self.convolutions, self.norms = self._make_stem()
            return
        # In the order of use, which is that of the weights.
        norm = dict(epsilon=norm_epsilon, dtype=dtype)
        if patch_norm:
            self.norm_before = layers.LayerNormalization(**norm, name="patch_norm")
        self.projection = self._dense(dim, "projection", patch_bias)
        if patch_norm:
            self.norm_after = layers.LayerNormalization(**norm, name="embedding_norm")

    @property
    def patch_sides(self) -> tuple[int, int]:
        """(height, width) of a patch."""
        return patch_sides(self.patch_size)

    def _make_stem(self):
        height, width = self.patch_sides
        if height != width:
            raise InputError(
                f'stem="{self.stem}" halves both sides at each layer, so patches must be square. '
                f"Received: patch_size={self.patch_size}"
            )
        widths = conv_stem_widths(self.dim, height, self.stem)
        convolutions = [
            layers.Conv2D(
                width,
                3,
                strides=2 if self.stem == "conv" else 1,
                padding="same",
                data_format="channels_last",  # not that of the configuration of Keras
                use_bias=False,  # the batch norm that follows has one
                **self._kernel("he_normal"),
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
        if self.stem != "linear":
            pairs = zip(self.convolutions, self.norms, strict=True)
            return {part.name: part for pair in pairs for part in pair}
        found = (self.norm_before, self.projection, self.norm_after)
        return {part.name: part for part in found if part is not None}

    def build(self, input_shape):
        batch, height, width, channels = self.image_shape_of(input_shape)
        check_grid((height, width, channels), self.patch_size)
        if channels is None:
            raise InputError("PatchEmbed must know the number of channels. Received: None channels")
        axis = 1 if self.data_format == "channels_first" else 3
        self.input_spec = layers.InputSpec(ndim=4, axes={axis: channels})
        if self.stem == "linear":
            cut = (batch, None, math.prod(self.patch_sides) * channels)
            self.projection.build(cut)
            if self.patch_norm:
                self.norm_before.build(cut)
                self.norm_after.build((*cut[:-1], self.dim))
            return
        shape: tuple[int | None, ...] = (batch, height, width, channels)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
            norm.build(shape)
            if self.stem == "conv-pool":
                shape = (batch, *(side and side // 2 for side in shape[1:3]), shape[3])

    def call(self, images, training=None):
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(images.dtype)):
            images = ops.cast(images, self.compute_dtype)  # Keras does not, and its convolutions refuse them
        if self.data_format == "channels_first":
            images = ops.transpose(images, (0, 2, 3, 1))
        check_grid(tuple(images.shape[1:]), self.patch_size)  # not the size that the layer was built with
        batch, height, width, _ = ops.shape(images)  # b h w c
        (p, q), is_known = self.patch_sides, isinstance(height, int) and isinstance(width, int)
        if is_known:
            batch = -1
        # Else the batch size is a tensor: with -1, wrong sizes would give other numbers of rows.
        grid = (batch, height // p, width // q)
        is_symbolic = not is_known and keras.backend.backend() == "jax"
        if not is_known and not is_symbolic:
            images = refused_unless_equal(
                images,
                height % p + width % q,
                0,
                "patch_size must divide the height and the width of the image. "
                f"Received: patch_size={self.patch_size}",
            )
        if is_symbolic and self.stem != "linear":
            raise InputError(
                f'stem="{self.stem}" cannot be exported for images of any size on JAX, which has no gradient '
                "of such convolutions: give keras.Input the height and the width, or export on TensorFlow."
            )
        if self.stem == "linear":
            x = self._cut(images, grid, is_symbolic)  # b n (p q c)
            if self.patch_norm:
                x = self.norm_after(self.projection(self.norm_before(x)))  # b n d
            else:
                x = self.projection(x)  # b n d
        else:
            x = images
            for convolution, norm in zip(self.convolutions, self.norms, strict=True):
                x = ops.relu(norm(convolution(x), training=training))  # b h/2 w/2 c, or b h w c
                if self.stem == "conv-pool":
                    x = _largest_of_four(x)  # b h/2 w/2 c
        if is_symbolic:
            x = _nan_if_cut_off(x, height % p + width % q)
        if self.feature_map:
            return ops.reshape(x, (*grid, self.dim))  # b r s d
        return ops.reshape(x, (batch, grid[1] * grid[2], self.dim))  # b n d

    def _cut(self, images, grid, is_symbolic):
        (batch, rows, columns), (p, q), channels = grid, self.patch_sides, images.shape[-1]
        # A product over cut patches is a convolution with stride = kernel size, and faster on CPUs.
        if is_symbolic:  # JAX cannot prove that p divides a size without a value
            x = ops.take(images, _indices(rows, p), axis=1)  # b r p w c
            x = ops.take(x, _indices(columns, q), axis=3)  # b r p s q c
        else:
            x = ops.reshape(images, (batch, rows, p, columns, q, channels))  # b r p s q c
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # b r s p q c
        return ops.reshape(x, (batch, rows * columns, p * q * channels))  # b n (p q c)

    def image_shape_of(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """(batch, height, width, channels) of an input in the data format of the layer."""
        if self.data_format == "channels_first":
            batch, channels, height, width = input_shape
            return batch, height, width, channels
        return tuple(input_shape)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = self.image_shape_of(input_shape)
        check_grid((height, width, channels), self.patch_size)
        p, q = self.patch_sides
        rows, columns = height and height // p, width and width // q
        if self.feature_map:
            return (batch, rows, columns, self.dim)
        return (batch, None if rows is None or columns is None else rows * columns, self.dim)

    @classmethod
    def from_config(cls, config):
        # Files of earlier versions do not tell: they are of images with the channels last.
        return super().from_config({"data_format": "channels_last", **config})

    def get_config(self):
        config = super().get_config()
        config.update(
            dim=self.dim,
            patch_size=self.patch_size,
            stem=self.stem,
            patch_bias=self.patch_bias,
            patch_norm=self.patch_norm,
            norm_epsilon=self.norm_epsilon,
            feature_map=self.feature_map,
            data_format=self.data_format,
        )
        return config


def _checked_patch_size(given: Any) -> Any:
    """A whole number, or a pair of them."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        check_fields(patch_size=given)
        return given
    if len(given) != 2:
        raise InputError(
            f"patch_size must be a whole number, or (height, width). Received: patch_size={given!r}"
        )
    sides = [whole(side, int) for side in given]
    for side in sides:
        check_fields(patch_size=side)
    return tuple(sides)


def _largest_of_four(x):
    """The maximum of each 2x2 pixels: (b, h, w, c) to (b, h/2, w/2, c)."""
    _, height, width, channels = x.shape
    if height is None or width is None:
        return ops.max_pool(x, 2, data_format="channels_last")
    # XLA on CPUs is slow at the gradient of a pooling, which it scatters.
    return ops.max(ops.reshape(x, (-1, height // 2, 2, width // 2, 2, channels)), axis=(2, 4))


def _indices(count, width):
    """The indices of consecutive parts of an axis: (count, width)."""
    return ops.arange(count, dtype="int32")[:, None] * width + ops.arange(width, dtype="int32")


def _nan_if_cut_off(x, rest):
    """Tokens, or NaN if pixels are left over: what JAX exports cannot refuse a size that comes later."""
    return ops.where(ops.equal(ops.convert_to_tensor(rest, dtype="int32"), 0), x, float("nan"))


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
