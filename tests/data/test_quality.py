"""Blurry, dark, bright and empty pictures, and those of an odd size, of every kind of image."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from keras_vit.data.quality import KINDS, find_flaws

pytestmark = pytest.mark.same_on_every_backend

RNG = np.random.default_rng(0)


def textured(size=(64, 64)):
    return RNG.integers(30, 226, (*size, 1)).astype("uint8")


def blurred():
    picture = Image.fromarray(textured()[..., 0]).filter(ImageFilter.GaussianBlur(3))
    return np.asarray(picture)[..., None]


FLAWS = {
    "dark": lambda: textured() // 8,
    "bright": lambda: np.full((64, 64, 1), 250, "uint8") + RNG.integers(0, 5, (64, 64, 1)).astype("uint8"),
    "low information": lambda: np.full((64, 64, 1), 128, "uint8"),
    "blurry": blurred,
    "odd size": lambda: textured((200, 210)),
    "odd aspect ratio": lambda: textured((20, 200)),
}


def as_png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(file, "PNG")
    return file.getvalue()


def test_every_kind_has_a_case():
    assert set(FLAWS) == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "how"), [*((kind, "bytes") for kind in FLAWS), ("dark", "pixels"), ("blurry", "file")]
)
def test_a_flawed_picture_is_found(kind, how, tmp_path):
    images = [textured() for _ in range(12)]
    images[7] = FLAWS[kind]()
    if how != "pixels":
        images = [as_png(image) for image in images]
    if how == "file":
        for i, image in enumerate(images):
            (tmp_path / f"{i}.png").write_bytes(image)
        images = [tmp_path / f"{i}.png" for i in range(len(images))]
    found = [flaw for flaw in find_flaws(images) if flaw.kind == kind]
    assert [flaw.position for flaw in found] == [7]
    assert 0 <= found[0].score <= 1


def test_good_pictures_have_no_flaws_and_unreadable_ones_none_either(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert find_flaws([tmp_path / "broken.png"]) == []
    assert find_flaws([as_png(textured()), b"no image", as_png(textured())]) == []
    assert find_flaws([]) == []
