"""Out-of-distribution example images: the rejection of every run is judged on them.

They come with this package or with scikit-image, and nothing is fitted on them: the threshold follows from
the validation images alone. The features were chosen once, on other images (photographs, handwritten digits,
NEU's images for a model of the drawn defects) and on the flat gray images here; the other images here were
only used to judge the result.
"""

import numpy as np

from keras_vit.data.image_set import Image
from keras_vit.data.sources.steel import draw_steel_defects
from keras_vit.data.values import is_measured

DRAWN_PER_CLASS = 20
TEXTURES = ("brick", "grass", "gravel")  # from https://cc0textures.com, 512 x 512 pixels, inside scikit-image
TEXTURE_SIDE = 128  # 16 windows per texture that do not overlap
NOISE_IMAGES = 60
DRAWN = "drawn defects"


def ood_example_images(image_shape: tuple[int, int, int]) -> dict[str, list[Image]]:
    """Out-of-distribution images by the name of their kind, always the same ones.

    Args:
        image_shape: (height, width, channels) of the model's input. Noise is drawn at that size, because a
            resize would average it out.

    Returns:
        `"drawn defects"`: 120 gray images of 200 x 200 of `keras_vit.data.sources.steel`. `"textures"`: 48
        windows of scikit-image's gray images of bricks, grass and gravel. `"noise"`: 60 images, half of them
        uniform, half Gaussian. `"flat gray"`: one image for each fifth gray level. All uint8 (height, width,
        channels); the gray ones are the same in all channels of measurement.
    """
    rng = np.random.default_rng(0)
    half = (NOISE_IMAGES // 2, *image_shape)
    channels = image_shape[2]

    def with_channels(images):
        return [np.repeat(image, channels, axis=-1) if is_measured(channels) else image for image in images]

    noise = [*rng.uniform(0, 255, half), *rng.normal(128, 40, half)]
    return {
        DRAWN: with_channels(draw_steel_defects(images_per_class=DRAWN_PER_CLASS).images),
        "textures": with_channels(texture_windows()),
        "noise": [np.clip(np.rint(image), 0, 255).astype("uint8") for image in noise],
        "flat gray": [np.full(image_shape, level, "uint8") for level in range(0, 256, 5)],
    }


def texture_windows() -> list[Image]:
    """uint8 (128, 128, 1) windows of scikit-image's textures."""
    from skimage import data

    return [
        picture[y : y + TEXTURE_SIDE, x : x + TEXTURE_SIDE, None]
        for name in TEXTURES
        for picture in [getattr(data, name)()]
        for y in range(0, picture.shape[0] - TEXTURE_SIDE + 1, TEXTURE_SIDE)
        for x in range(0, picture.shape[1] - TEXTURE_SIDE + 1, TEXTURE_SIDE)
    ]
