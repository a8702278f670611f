"""Shortcuts that were planted, one at a time."""

import io
import os
from datetime import datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from keras_vit.data.reading import read_images
from keras_vit.data.shortcuts import find_shortcuts

pytestmark = pytest.mark.same_on_every_backend

EACH = 14
CLASSES = ("a", "b")


def plain(rng, size=(40, 40), level=128):
    return np.clip(rng.normal(level, 25, size), 0, 255).astype("uint8")


def encoded(pixels, format="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def framed(pixels):
    pixels = pixels.copy()
    pixels[:8] = pixels[-8:] = 255
    pixels[:, :8] = pixels[:, -8:] = 255
    return pixels


def taken(day):
    exif = Image.Exif()
    exif[0x0132] = f"2026:03:{day:02} 12:00:00"
    return exif


PLANTED = {
    "size": lambda rng, label, i: encoded(plain(rng, (40, 40) if label else (40, 48))),
    "brightness": lambda rng, label, i: encoded(plain(rng, level=90 if label else 160)),
    "border": lambda rng, label, i: encoded(framed(plain(rng)) if label else plain(rng)),
    "file": lambda rng, label, i: encoded(plain(rng), "PNG" if label else "JPEG", quality=95),
    "time": lambda rng, label, i: encoded(plain(rng), exif=taken(1 + i % 9 + 15 * label)),
}


def shortcuts(make, groups=None):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], EACH)
    images = [make(rng, label, i) for i, label in enumerate(labels.tolist())]
    groups = np.arange(len(labels)) if groups is None else groups
    return {found.name: found for found in find_shortcuts(read_images(images), labels, CLASSES, groups)}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_shortcut_is_named(name):
    found = shortcuts(PLANTED[name])
    assert found[name].telling
    assert found[name].auc > 0.9
    assert set(found[name].classes) == set(CLASSES)


def test_without_shortcuts_none_is_named():
    found = shortcuts(lambda rng, label, i: encoded(plain(rng)))
    assert not any(cue.telling for cue in found.values())
    assert found["size"].auc == found["file"].auc == 0.5
    assert found["time"].skipped == "the files do not say when the pictures were taken"


def test_the_compression_of_jpeg_tells_the_class():
    found = shortcuts(lambda rng, label, i: encoded(plain(rng), "JPEG", quality=60 if label else 90))
    assert found["file"].telling


def test_times_of_files_count_unless_they_are_those_of_a_copy(tmp_path):
    labels = np.repeat([0, 1], EACH)
    rng, paths = np.random.default_rng(0), []
    for i in range(len(labels)):
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(encoded(plain(rng)))
    read, groups = read_images(paths), np.arange(len(labels))
    time = find_shortcuts(read, labels, CLASSES, groups)[-1]
    assert "all written within an hour" in time.skipped
    for i, path in enumerate(paths):
        when = (datetime(2026, 3, 1) + timedelta(days=i)).timestamp()
        os.utime(path, (when, when))
    assert find_shortcuts(read, labels, CLASSES, groups)[-1].telling


def test_arrays_have_no_files():
    found = shortcuts(lambda rng, label, i: plain(rng)[..., None])
    assert found["file"].skipped == found["time"].skipped == "the images are not in files"


@pytest.mark.parametrize("each", [1, 9])
def test_few_images_are_not_judged(each):
    labels = np.repeat([0, 1], each)
    rng = np.random.default_rng(0)
    read = read_images([plain(rng)[..., None] for _ in labels])
    found = find_shortcuts(read, labels, CLASSES, np.arange(len(labels)))
    assert all(cue.skipped == "fewer than two classes have 10 images, of 5 things or more" for cue in found)


def test_images_of_one_thing_per_class_are_not_judged():
    found = shortcuts(PLANTED["size"], groups=np.repeat([0, 1], EACH))
    assert {cue.skipped for cue in found.values()} == {
        "fewer than two classes have 10 images, of 5 things or more"
    }
