"""The convolutional networks that a ViT is compared with, of Keras's own layers, and what they cost."""

import math

import keras
from keras import layers

from keras_vit.data.preprocess import Preprocessing, scale_pixels
from keras_vit.model.random_stream import keeps_python_random

Shape = tuple[int, int, int]

WIDTHS = (32, 64, 128)
"""Channels of the stages of the plain CNN."""

BLOCKS = 2
"""Residual blocks per stage of the ResNet: its CIFAR form with 14 layers."""

MOMENTUM = 0.9
"""Of batch norm, as in the convolutions of `ViT`: the runs are short."""

SIDE = 40
"""Pixels per side from which on convolutions first halve the image: a ViT's patches do so too."""

RESNET_WIDTHS = range(2, 129, 2)
"""Channels of the first stage that are tried to meet a cost."""


@keeps_python_random
def plain_cnn(
    image_shape: Shape, num_classes: int, dtype: str = "float32", widths: tuple[int, ...] = WIDTHS
) -> keras.Model:
    """A plain CNN: stages of two 3x3 convolutions and a pooling, then the mean over the image.

    After K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition",
    2014, with batch norm, and small: 288,550 parameters for gray images of six classes.

    Args:
        image_shape: (height, width, channels).
        num_classes: of the logits.
        dtype: of the policy; the logits are float32.
        widths: channels of each stage.
    """
    inputs = x = keras.Input(image_shape)
    for _ in range(halvings(image_shape)):
        x = _conv(x, widths[0], dtype, strides=2)
    for i, width in enumerate(widths):
        if i:
            x = layers.MaxPooling2D(dtype=dtype)(x)
        x = _conv(_conv(x, width, dtype), width, dtype)
    return keras.Model(inputs, _head(x, num_classes, dtype), name="cnn")


@keeps_python_random
def resnet(image_shape: Shape, num_classes: int, width: int, dtype: str = "float32") -> keras.Model:
    """A ResNet in the form for small images: three stages of residual blocks, each of half the side.

    K. He et al., "Deep residual learning for image recognition", 2015, section 4.2, with the shortcut of a
    1x1 convolution where the shape changes.

    Args:
        image_shape: (height, width, channels).
        num_classes: of the logits.
        width: channels of the first stage; the next ones have 2 and 4 times as many.
        dtype: of the policy; the logits are float32.
    """
    inputs = x = keras.Input(image_shape)
    for _ in range(halvings(image_shape)):
        x = _conv(x, width, dtype, strides=2)
    x = _conv(x, width, dtype)
    for stage in range(3):
        filters = width * 2**stage
        for block in range(BLOCKS):
            strides = 2 if stage and not block else 1
            shortcut = x
            if strides > 1:
                shortcut = _conv(x, filters, dtype, strides=2, kernel=1, relu=False)
            y = _conv(_conv(x, filters, dtype, strides), filters, dtype, relu=False)
            x = layers.ReLU(dtype=dtype)(layers.Add(dtype=dtype)([y, shortcut]))
    return keras.Model(inputs, _head(x, num_classes, dtype), name="resnet")


def from_pixels(network: keras.Model, preprocessing: Preprocessing) -> keras.Model:
    """The network as others use it: the scaling of the pixels before it, and a softmax behind it.

    Args:
        network: from scaled pixels to logits.
        preprocessing: of its training images.

    Returns:
        A model of Keras's own layers on the same weights, from float32 (batch, height, width, channels) in
        0..255 to the probabilities of the classes, float32 (batch, classes).
    """
    images = keras.Input(network.input.shape[1:], name="images")
    # A new model of the same layers: the file of a compiled one would hold its optimizer and our metrics.
    plain = keras.Model(network.input, network.output, name=network.name)
    logits = plain(scale_pixels(images, preprocessing))
    return keras.Model(images, layers.Softmax(dtype="float32")(logits), name=f"{network.name}_of_pixels")


def resnet_width(image_shape: Shape, mult_adds: int) -> int:
    """The width of the ResNet whose mult-adds per image come nearest to a number."""
    return min(RESNET_WIDTHS, key=lambda width: abs(resnet_mult_adds(image_shape, width) - mult_adds))


def resnet_mult_adds(image_shape: Shape, width: int) -> int:
    """Mult-adds per image of the convolutions of `resnet`, without building it."""
    height, wide, channels = image_shape
    total = 0

    def conv(channels: int, filters: int, strides: int = 1, kernel: int = 3) -> None:
        nonlocal height, wide, total
        height, wide = math.ceil(height / strides), math.ceil(wide / strides)
        total += height * wide * kernel * kernel * channels * filters

    for _ in range(halvings(image_shape)):
        conv(channels, width, strides=2)
        channels = width
    conv(channels, width)
    channels = width
    for stage in range(3):
        filters = width * 2**stage
        for block in range(BLOCKS):
            strides = 2 if stage and not block else 1
            conv(channels, filters, strides)
            if strides > 1:
                total += height * wide * channels * filters
            conv(filters, filters)
            channels = filters
    return total


def halvings(image_shape: Shape) -> int:
    """How many convolutions with stride 2 come first: until the longer side has at most `SIDE` pixels."""
    side, found = max(image_shape[:2]), 0
    while side > SIDE:
        side, found = math.ceil(side / 2), found + 1
    return found


def count_mult_adds_of(model: keras.Model) -> int:
    """Mult-adds per image of the convolutions and dense layers of a model, counted as in `model/cost.py`."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D | layers.Dense):
            positions = math.prod(layer.output.shape[1:-1])
            total += positions * math.prod(layer.kernel.shape)
    return total


def _conv(
    x: keras.KerasTensor, filters: int, dtype: str, strides: int = 1, kernel: int = 3, relu: bool = True
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters, kernel, strides, "same", use_bias=False, kernel_initializer="he_normal", dtype=dtype
    )(x)
    x = layers.BatchNormalization(momentum=MOMENTUM, dtype=dtype)(x)
    return layers.ReLU(dtype=dtype)(x) if relu else x


def _head(x: keras.KerasTensor, num_classes: int, dtype: str) -> keras.KerasTensor:
    x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
    return layers.Dense(num_classes, dtype="float32", name="logits")(x)
