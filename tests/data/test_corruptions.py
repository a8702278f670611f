"""Corruptions do what their names say, at three strengths, to gray and colour images of any size."""

import importlib.util
import io

import numpy as np
import pytest
from PIL import Image

from keras_vit.data.corruptions import (
    KINDS,
    MOST_PIXELS,
    STRENGTHS,
    corrupt,
    corrupted_copies,
    reduced,
)
from tests.helpers.paths import SHARED

pytestmark = pytest.mark.same_on_every_backend

SHAPES = ((200, 200, 1), (60, 90, 3))


def picture(shape=SHAPES[0], low=70, high=180):
    """Random pixels that no corruption but noise and uneven light pushes out of 0..255."""
    return np.random.default_rng(0).integers(low, high, shape).astype("uint8")


def changed(image, kind, strength=2, seed=0):
    return corrupt(image, kind, strength, np.random.RandomState(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_shape_stays_and_the_picture_changes(kind, strength, shape):
    image = picture(shape)
    found = changed(image, kind, strength)
    assert (found.shape, found.dtype) == (shape, np.uint8)
    assert (found != image).mean() > 0.3
    np.testing.assert_array_equal(found, changed(image, kind, strength))


@pytest.mark.parametrize("kind", KINDS)
def test_a_higher_strength_changes_more(kind):
    """On a smooth image, which rotation and motion do not scramble at once."""
    rows, columns = np.mgrid[:200, :200]
    image = (128 + 40 * np.sin(rows / 20) * np.sin(columns / 20))[..., None].astype("uint8")
    far = [np.abs(changed(image, kind, s).astype(float) - image).mean() for s in STRENGTHS]
    assert far[0] < far[1] < far[2]


@pytest.mark.parametrize(("strength", "levels"), [(1, 20), (2, 40), (3, 60)])
def test_brightness_adds_the_same_to_all_pixels(strength, levels):
    image = picture()
    signs = {
        int(np.unique(changed(image, "brightness", strength, seed).astype(int) - image).item())
        for seed in range(8)
    }
    assert signs == {-levels, levels}


@pytest.mark.parametrize(("strength", "share"), [(1, 0.7), (2, 0.5), (3, 0.3)])
def test_contrast_keeps_the_mean_and_a_share_of_the_deviation(strength, share):
    image = picture()
    found = changed(image, "contrast", strength)
    assert found.std() == pytest.approx(share * image.std(), rel=0.02)
    assert found.mean() == pytest.approx(image.mean(), abs=1)


@pytest.mark.parametrize(("strength", "deviation"), [(1, 8), (2, 16), (3, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_is_independent_per_pixel_and_channel(strength, deviation, channels):
    found = changed(np.full((200, 200, channels), 128, "uint8"), "noise", strength).astype(float)
    assert found.std() == pytest.approx(deviation, rel=0.05)
    assert abs(np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]) < 0.03
    if channels == 3:
        assert abs(np.corrcoef(found[..., 0].ravel(), found[..., 1].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize(("side", "pixels"), [(200, 9), (400, 18), (20, 2)])
def test_motion_spreads_a_point_over_a_row_as_long_as_the_side_says(side, pixels):
    image = np.zeros((side, side, 1), "uint8")
    image[side // 2, side // 2] = 252
    found = changed(image, "motion")[..., 0]
    assert (found > 0).sum() == (found[side // 2] > 0).sum() == pixels
    assert found.max() == 252 // pixels


@pytest.mark.parametrize("side", [200, 400])
def test_blur_grows_with_the_side(side):
    image = np.zeros((side, side, 1), "uint8")
    image[:, side // 2 :] = 200
    edge = changed(image, "blur")[side // 2, :, 0].astype(float)
    assert np.diff(edge).max() == pytest.approx(200 / np.sqrt(2 * np.pi) / (2 * side / 200), rel=0.1)


def test_light_falls_off_to_one_side():
    image, ways = np.full((100, 100, 1), 120, "uint8"), set()
    for seed in range(20):
        found = changed(image, "uneven", seed=seed)[..., 0].astype(float)
        down, across = found[:, 0], found[0]
        axis = down if down.std() > across.std() else across
        assert sorted([axis[0], axis[-1]]) == [
            pytest.approx(120 * 0.6, abs=1),
            pytest.approx(120 * 1.4, abs=1),
        ]
        assert min(down.std(), across.std()) == 0
        ways.add((down.std() > across.std(), axis[0] > axis[-1]))
    assert len(ways) == 4


def test_jpeg_is_that_of_pillow():
    image, buffer = picture(SHAPES[1]), io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=20)
    np.testing.assert_array_equal(changed(image, "jpeg"), np.asarray(Image.open(buffer)))


def test_rotation_fills_the_corners_with_the_mean_colour():
    image = np.zeros((100, 100, 3), "uint8")
    image[:] = (10, 100, 200)
    np.testing.assert_array_equal(changed(image, "rotate", 3), image)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_those_that_the_goals_were_set_with(kind):
    path = SHARED / "cases" / "corruptions.py"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    spec = importlib.util.spec_from_file_location("shared_corruptions", path)
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    image = picture(low=0, high=256)
    for strength in STRENGTHS:
        for seed in range(4):
            wanted = theirs.corrupt(image[..., 0], kind, strength - 1, np.random.RandomState(seed))
            np.testing.assert_array_equal(changed(image, kind, strength, seed)[..., 0], wanted)


@pytest.mark.parametrize(("kind", "strength"), [("fog", 1), ("noise", 0), ("noise", 4)])
def test_other_kinds_and_strengths_are_refused(kind, strength):
    with pytest.raises(ValueError, match=rf"Received: '{kind}', {strength}"):
        changed(picture(), kind, strength)


def test_a_copy_depends_on_its_image_and_its_number_alone():
    images = [picture(), picture(SHAPES[1]), picture((30, 30, 1))]
    two, one = corrupted_copies(images, 2, KINDS, [7]), corrupted_copies(images[:2], 1, KINDS, [7])
    assert [copy.shape for copy in two] == [image.shape for image in images] * 2
    for found, wanted in zip(one, two, strict=False):
        np.testing.assert_array_equal(found, wanted)
    assert (two[0] != two[3]).any()
    assert (corrupted_copies(images[:1], 1, KINDS, [8])[0] != two[0]).any()


def test_copies_have_only_the_kinds_that_are_named():
    image = picture()
    found = corrupted_copies([image] * 30, 1, ("brightness",), [0])
    assert all(len(np.unique(copy.astype(int) - image)) == 1 for copy in found)
    assert len({int(copy.mean()) for copy in found}) == 6  # three strengths, brighter and darker


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((512, 900, 1), (512, 900, 1)), ((1024, 2048, 3), (512, 1024, 3)), ((700, 600, 1), (597, 512, 1))],
)
def test_large_images_are_reduced_first(shape, wanted):
    found = reduced(np.full(shape, 90, "uint8"))
    assert (found.shape, found.dtype) == (wanted, np.uint8)
    assert (found == 90).all()
    assert min(found.shape[:2]) <= MOST_PIXELS
