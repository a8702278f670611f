"""Six drawn steel-surface defects: labelled images that need no download.

They imitate the NEU surface defect database of hot-rolled steel strip: K. Song and Y. Yan, "A noise robust
method based on completed local binary patterns for hot-rolled steel strip surface defects", Applied Surface
Science 285 (2013) 858-864, doi 10.1016/j.apsusc.2013.09.002. No pixel is copied from it: every image is drawn
from noise.

An image is exposure times plate times defect. Plate and exposure have the same distribution in all classes,
so that neither brightness nor texture reveals the class, only the shape of the defect: a linear classifier on
the pixels classifies about a quarter of the test images correctly, a small convolutional network at 28 x 28
about 95 %.

All lengths are in units of 1/200 of the image side: a scene is the same at every size, only sampled finer.
All sums are in float64: machines differ there by about 1e-16, which the rounding to uint8 hides.
"""

from functools import lru_cache

import numpy as np

from keras_vit.data.image_set import ImageSet
from keras_vit.errors import InputError

SOURCE = "drawn steel defects"
SIDE = 200  # units along one image side; NEU's images have 200 pixels


def draw_steel_defects(seed: int = 0, images_per_class: int = 300, size: int = 200) -> ImageSet:
    """Draws gray images of hot-rolled steel, each with one of six kinds of defect.

    The defaults have the form of the NEU database (see the module): 6 x 300 images of 200 x 200 pixels.
    Image k of a class depends only on the seed, the class and k: a smaller set is, class by class, the
    beginning of a larger one with the same seed.

    Args:
        seed: 0 or more; the same seed draws the same images.
        images_per_class: 1 or more.
        size: height and width in pixels, 16 or more. The same scenes at every size.

    Returns:
        An `ImageSet` of `6 * images_per_class` images, each uint8 (size, size, 1), in the order of the
        classes, named `"crazing/crazing_1.png"` and so on.

    Raises:
        InputError: an argument is out of range.

    Example:

    >>> images = draw_steel_defects(images_per_class=2)
    >>> images.names[:3], images.images[0].shape
    (('crazing/crazing_1.png', 'crazing/crazing_2.png', 'inclusion/inclusion_1.png'), (200, 200, 1))
    """
    for name, value, least in (
        ("seed", seed, 0),
        ("images_per_class", images_per_class, 1),
        ("size", size, 16),
    ):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise InputError(f"{name} must be an integer, {least} or more. Received: {name}={value!r}")
    class_names = tuple(DEFECTS)
    return ImageSet(
        source=SOURCE,
        class_names=class_names,
        images=[_draw(seed, label, k, size) for label in range(6) for k in range(images_per_class)],
        names=tuple(f"{name}/{name}_{k + 1}.png" for name in class_names for k in range(images_per_class)),
        labels=np.repeat(np.arange(6, dtype=np.int64), images_per_class),
    )


def _draw(seed, label, k, size):
    """Image k of a class: uint8 (size, size, 1)."""
    # One stream per image, not one for the set, so that no image depends on how many were drawn before it.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(label, k)))
    draw_defect = list(DEFECTS.values())[label]
    exposure = _between(rng, 0.22, 0.95)  # NEU's image means run from 50 to 240 of 255, in every class
    surface = _plate(rng, size) * draw_defect(rng, size)
    return np.clip(255 * exposure * surface + 0.5, 0, 255).astype(np.uint8)[:, :, None]


# Helpers. Arrays are float64 (size, size), rows down.


def _between(rng, low, high):
    """One number, log-uniform: strengths and lengths vary by ratios."""
    return low * (high / low) ** rng.random()


@lru_cache(maxsize=64)
def _spline(pixels, cells):
    """The (pixels, cells) matrix that interpolates `cells` knots smoothly: cubic B-splines."""
    from scipy.sparse import csr_array  # comes with scikit-learn

    position = (np.arange(pixels)[:, None] + 0.5) / pixels * (cells - 3) + 1
    knots = position.astype(np.int64) + np.arange(-1, 3)  # (pixels, 4): those that a pixel depends on
    away = np.abs(position - knots)
    weights = np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, (2 - away) ** 3 / 6)
    # 2-norm 1, not sum 1: white noise at the knots then has variance 1 at every pixel.
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    # Sparse, for speed, and because the BLAS threads of a dense product compete on a busy machine.
    return csr_array((weights.ravel(), knots.ravel(), 4 * np.arange(pixels + 1)), shape=(pixels, cells))


def _noise(rng, size, length_y, length_x, slope=0.0):
    """Smooth noise, mean 0, variance 1, with these correlation lengths; sheared by slope in [-1, 1]."""
    height = 1 if slope == 0 else 2  # shearing takes pixels from a second image
    cells_y = max(1, round(height * SIDE / length_y)) + 3  # a spline reaches over 4 knots
    cells_x = max(1, round(SIDE / length_x)) + 3
    knots = rng.standard_normal((cells_x, cells_y))
    noise = _spline(height * size, cells_y) @ (_spline(size, cells_x) @ knots).T
    if slope == 0:
        return noise
    columns = np.arange(size)
    shift = np.rint(slope * columns).astype(np.int64) + (size if slope < 0 else 0)
    return noise[columns[:, None] + shift, columns]


def _grid(size):
    """Pixel centres in units: y (size, 1) and x (1, size)."""
    centres = (np.arange(size) + 0.5) * (SIDE / size)
    return centres[:, None], centres[None, :]


def _step(values, soft):
    """0 below -soft, 1 above +soft, a smooth ramp between."""
    ramp = np.clip(values / (2 * soft) + 0.5, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _crowd(rng, size, share):
    """Density of small marks: 0..1. Share 1 is nearly everywhere, 0 half the plate, -1 almost nowhere."""
    reach = _between(rng, 30, 120)
    tall = _between(rng, 1, 4)  # clusters stretch along the rolling direction
    return _step(_noise(rng, size, reach * tall, reach) + share, 0.9)


# The plate, and the factor of each defect.


def _plate(rng, size):
    """The surface without a defect, about 1: uneven light, bands in the rolling direction, marks, grain."""
    light = _between(rng, 0.03, 0.2) * _noise(rng, size, 150, 150)
    bands = _between(rng, 0.01, 0.08) * _noise(rng, size, 300, 16)
    brushed = _between(rng, 0.01, 0.06) * _noise(rng, size, 2, 14, slope=rng.uniform(-0.6, 0.6))
    grain = _between(rng, 0.02, 0.12) * _noise(rng, size, 1.6, 1.3)
    return np.clip(1 + light + bands + brushed + grain, 0, None)


def _crazing(rng, size):
    """A network of fine dark cracks, mostly across the rolling direction, broken and winding."""
    # The zero lines of smooth noise are long thin curves; finer noise on top makes them wind.
    length = _between(rng, 9, 18)
    width = _between(rng, 0.12, 0.22)
    cracks = np.zeros((size, size))
    for _ in range(2):
        lines = _noise(rng, size, length, 2.2 * length) + 0.2 * _noise(rng, size, 3, 3.5)
        whole = _step(_noise(rng, size, 10, 16) + rng.uniform(-0.4, 0.3), 1)
        cracks = np.maximum(cracks, np.exp(-((lines / width) ** 2)) * whole)
    return 1 - _between(rng, 0.4, 0.75) * cracks


def _inclusion(rng, size):
    """A few dark spindles, rolled long and thin, one after another; sometimes across."""
    y, x = _grid(size)
    ragged = 0.25 * _noise(rng, size, 8, 3)
    seam = rng.uniform(20, 180)
    lean = rng.normal(0, 0.06)
    dark = np.zeros((size, size))
    for _ in range(rng.integers(3, 10)):
        length = _between(rng, 12, 60)
        width = length / _between(rng, 5, 12) + 1
        middle = rng.uniform(0, SIDE)
        along = (y - middle) / length
        across = (x - seam - rng.normal(0, 14) - lean * (y - middle)) / width
        spindle = _step(1 - along**2 - np.abs(across) + ragged, 0.5)
        dark = np.maximum(dark, rng.uniform(0.6, 1) * spindle)
    factor = 1 - _between(rng, 0.3, 0.6) * dark
    return factor.T if rng.random() < 0.2 else factor


def _patches(rng, size):
    """Large areas with rough borders, dark or, less often, bright; some plates have black flakes too."""
    width = _between(rng, 22, 45)
    areas = _noise(rng, size, width * _between(rng, 1, 2.5), width) + 0.12 * _noise(rng, size, 4, 4)
    # A share of the plate, not a fixed height: noise this coarse may stay below any height.
    inside = _step(areas - np.quantile(areas, rng.uniform(0.45, 0.85)), 0.3)
    strength = _between(rng, 0.35, 0.7)
    flakes = _step(_noise(rng, size, 3, 5) - 2.2, 0.2) * _crowd(rng, size, 0.3) * rng.integers(0, 2)
    bright = rng.random() < 0.25
    return (1 + strength * inside if bright else 1 - strength * inside) * (1 - 0.6 * flakes)


def _pitted_surface(rng, size):
    """Many small round pits, evenly over the plate or in clusters; some plates have larger ones."""
    length = _between(rng, 1.6, 3.4)
    rarity = 2.2 - 1.1 * _crowd(rng, size, rng.uniform(0, 1.6))
    pits = _step(_noise(rng, size, 1.2 * length, length) - rarity, 0.6)
    return 1 - _between(rng, 0.35, 0.6) * pits


def _rolled_in_scale(rng, size):
    """Dark flakes pressed in across the rolling direction, in clusters, each with a bright lower lip."""
    length = _between(rng, 3.2, 5.5)
    relief = _noise(rng, size, length, 2.2 * length, slope=rng.uniform(-0.4, 0.4))
    relief += 0.35 * _noise(rng, size, 1.5, 3)
    rarity = 2.9 - 1.6 * _crowd(rng, size, rng.uniform(-0.3, 0.8))
    flakes = _step(relief - rarity, 0.7)
    lip = np.clip(np.roll(flakes, max(1, round(2 * size / SIDE)), axis=0) - flakes, 0, None)
    strength = _between(rng, 0.4, 0.65)
    return 1 - strength * flakes + 0.5 * strength * lip


def _scratches(rng, size):
    """Thin bright lines, one or several: vertical, horizontal or slanted, some short, some bent."""
    y, x = _grid(size)
    rough = 1 + 0.3 * _noise(rng, size, 10, 2)
    slant = rng.uniform(-1, 1) if rng.random() < 0.2 else rng.normal(0, 0.04)
    middle, spread = rng.uniform(30, 170), _between(rng, 5, 60)
    bright = np.zeros((size, size))
    for line in range(rng.integers(1, 7)):
        offset = rng.normal(0, spread) if line else 0  # the first is always on the plate
        bend = rng.normal(0, 0.0003) * (y - 100) ** 2
        off = x - middle - offset - (slant + rng.normal(0, 0.03)) * (y - 100) - bend
        half_width = _between(rng, 0.6, 3) * (3 if rng.random() < 0.1 else 1)
        stroke = _step(half_width - np.abs(off), 1)
        part = _step(_between(rng, 20, 200) - np.abs(y - rng.uniform(40, 160)), 12)
        bright = np.maximum(bright, _between(rng, 0.4, 1) * stroke * part)
    factor = 1 + _between(rng, 0.6, 1.6) * bright * rough
    return factor.T if rng.random() < 0.4 else factor


# In alphabetical order, as class folders are read; the label is the position.
DEFECTS = {
    "crazing": _crazing,
    "inclusion": _inclusion,
    "patches": _patches,
    "pitted_surface": _pitted_surface,
    "rolled-in_scale": _rolled_in_scale,
    "scratches": _scratches,
}
