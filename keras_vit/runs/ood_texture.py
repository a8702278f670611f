"""What the grain of an image is like, whatever it shows: statistics of its Haar wavelets."""

from keras import layers, ops

LEAST = 1e-3
"""Added to what has a logarithm: an image of one gray level has no contrast."""

LEAST_ENERGY = 1e-5
"""Added to what is divided by."""

SMALLEST = 4
"""Side in pixels of the smallest image that is halved again."""


class Texture(layers.Layer):
    """Statistics of an image at all scales: contrast, peakedness and regularity of its edges.

    The gray image is halved again and again. At each scale there are three bands: the differences between
    neighbours from left to right, from top to bottom, and across. Each band gives the logarithm of its
    root-mean-square, how peaked its values are (the logarithms of the mean and of the fourth moment against
    the root-mean-square), and how alike neighbours are in both directions. Each pair of bands gives how
    often they are strong at the same place. Mean and contrast of the image come first.

    A model that was trained from scratch on a few hundred small images ignores what does not tell its classes
    apart. These numbers do not depend on training.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, 2 + 18 * scales)`, float32
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})

    def call(self, images):
        x = ops.mean(ops.cast(images, "float32"), axis=-1)  # b h w
        level = ops.mean(x, axis=(1, 2), keepdims=True)  # b 1 1
        # Not `ops.std`: torch warns of it for an empty batch, with which Keras asks for the output's shape.
        contrast = ops.sqrt(_mean(ops.square(x - level)))  # b
        found = [level[:, 0, 0], ops.log(contrast + LEAST)]
        while min(x.shape[1:]) >= SMALLEST:
            bands, x = _halve(x)
            for band in bands:
                found += _statistics(band)
            squared = [_mean(ops.square(band)) for band in bands]
            for i, j in ((1, 0), (2, 0), (2, 1)):
                both = _mean(ops.abs(bands[i]) * ops.abs(bands[j]))
                found.append(both / ops.sqrt(squared[i] * squared[j] + LEAST_ENERGY**2))
        return ops.stack(found, axis=-1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 2 + 18 * num_scales(*input_shape[1:3]))


def num_scales(height: int, width: int) -> int:
    """How many times an image is halved."""
    count, side = 0, min(height, width)
    while side >= SMALLEST:
        count, side = count + 1, side // 2
    return count


def _mean(x):
    return ops.mean(x, axis=(1, 2))


def _halve(x):
    """The three bands of an image and the image at half the size; an odd row or column is dropped."""
    height, width = x.shape[1] // 2, x.shape[2] // 2
    blocks = ops.reshape(x[:, : 2 * height, : 2 * width], (-1, height, 2, width, 2))
    a, b, c, d = (blocks[:, :, i, :, j] for i in (0, 1) for j in (0, 1))  # b h/2 w/2
    bands = [(a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
    return bands, (a + b + c + d) / 4


def _statistics(band):
    """Five numbers per image: each (batch,)."""
    squared = ops.square(band)
    energy = _mean(squared)
    size = ops.log(ops.sqrt(energy) + LEAST)
    mean = ops.log(_mean(ops.abs(band)) + LEAST)
    peak = ops.log(ops.sqrt(ops.sqrt(_mean(ops.square(squared)))) + LEAST)
    down = _mean(band[:, 1:] * band[:, :-1]) / (energy + LEAST_ENERGY)
    right = _mean(band[:, :, 1:] * band[:, :, :-1]) / (energy + LEAST_ENERGY)
    return [size, size - mean, peak - size, down, right]
