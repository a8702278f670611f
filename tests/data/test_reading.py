"""One pass over images: what it keeps, that a second pass gives the same, and its limits."""

import numpy as np
import pytest
from PIL import Image

from keras_vit.data import pipeline, reading
from keras_vit.data.decode import decode_image
from keras_vit.data.image_set import ImageSet
from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.reading import read_images
from tests.helpers import decodes
from tests.helpers.image_files import encoded

pytestmark = pytest.mark.same_on_every_backend

GRAY = Preprocessing((12, 10, 1))


def files(folder):
    """Images of different kinds, sizes and channels."""
    rng = np.random.default_rng(0)
    kinds = [("a.png", "L"), ("b.png", "LA"), ("c.png", "RGBA"), ("d.jpg", "RGB"), ("e.bmp", "P"),
             ("f.gif", "P"), ("g.webp", "RGB")]  # fmt: skip
    for i, (name, mode) in enumerate(kinds):
        pixels = rng.integers(0, 256, (20 + i, 17 + 3 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / name)
    return [folder / name for name, _ in kinds]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return files(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("aspect", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
def test_prepared_pixels_equal_a_second_reading(paths, aspect, channels):
    preprocessing = Preprocessing((12, 10, channels), aspect)
    expected = read_pixels(paths, preprocessing)
    for images in (paths, [path.read_bytes() for path in paths]):
        found = read_images(images, preprocessing)
        assert found.reasons == [None] * len(paths)
        np.testing.assert_array_equal(found.prepared, expected)
        np.testing.assert_array_equal(read_pixels(found.inputs, preprocessing), expected)


@pytest.mark.parametrize("size", [(12, 10), (33, 21)])
def test_arrays_are_prepared_as_they_are_read(size):
    pixels = np.random.default_rng(0).integers(0, 256, (5, *size, 1), dtype=np.uint8)
    found = read_images(list(pixels), GRAY, keep_originals=True)
    np.testing.assert_array_equal(found.prepared, read_pixels(list(pixels), GRAY))
    assert all(one is other for one, other in zip(found.originals, found.images, strict=True))
    assert found.prepared[0].dtype == np.float32
    again = read_images(found.prepared, GRAY)
    np.testing.assert_array_equal(again.prepared, found.prepared)
    assert [info.kind for info in again.infos] == ["array"] * 5


def test_each_image_is_decoded_once(paths):
    with decodes.counted() as counts:
        read_images(paths, GRAY, keep_originals=True)
    assert counts == {path.read_bytes(): 1 for path in paths}


def test_originals_are_the_decoded_pixels(paths):
    found = read_images(paths, keep_originals=True)
    assert found.prepared is None
    assert found.inputs is paths
    for path, pixels, info in zip(paths, found.originals, found.infos, strict=True):
        np.testing.assert_array_equal(pixels, decode_image(path.read_bytes()))
        assert pixels.shape == (info.height, info.width, info.channels)
        assert pixels.dtype == np.uint8
    assert read_images(paths).originals is None


def test_unreadable_images_keep_their_position(paths, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(paths[0].read_bytes()[:60])
    images = [paths[0], broken, tmp_path / "missing.png", paths[1]]
    found = read_images(images, GRAY, keep_originals=True)
    assert found.readable == [0, 3]
    assert found.reasons == [
        None,
        "cannot be decoded: cut short or damaged",
        "cannot be opened (No such file or directory)",
        None,
    ]
    assert [info is None for info in found.infos] == [False, True, True, False]
    assert found.originals[1] is found.originals[2] is None
    np.testing.assert_array_equal(found.prepared[1], np.zeros((12, 10, 1)))
    np.testing.assert_array_equal(found.prepared[3], read_pixels([paths[1]], GRAY)[0])
    good = found.take(found.readable)
    assert good.images == [paths[0], paths[1]]
    assert good.reasons == [None, None]
    assert [info.kind for info in good.infos] == ["PNG", "PNG"]
    np.testing.assert_array_equal(good.prepared, read_pixels(good.images, GRAY))


def test_no_images():
    found = read_images([], GRAY, keep_originals=True)
    assert (found.infos, found.reasons, found.prepared, found.originals) == ([], [], [], [])


def image_set(paths):
    labels = np.arange(len(paths), dtype=np.int64) % 2
    return ImageSet("here", ("a", "b"), paths, tuple(path.name for path in paths), labels)


def test_an_image_set_gets_the_pixels(paths):
    images = image_set(paths)
    found = read_images(paths, GRAY, keep_originals=True)
    full = found.put_into(images)
    assert (full.names, full.source) == (images.names, images.source)
    part = full.take([4, 2])
    np.testing.assert_array_equal(read_pixels(part.images, GRAY), read_pixels([paths[4], paths[2]], GRAY))
    np.testing.assert_array_equal(part.original(0), found.originals[4])
    assert images.original(1) is paths[1]


def test_above_the_limit_of_memory_images_are_read_again(paths, monkeypatch):
    images = image_set(paths)
    monkeypatch.setattr(pipeline, "CACHE_BYTES", len(paths) * 12 * 10 * 4)
    assert read_images(paths, GRAY).prepared is not None
    monkeypatch.setattr(pipeline, "CACHE_BYTES", len(paths) * 12 * 10 * 4 - 1)
    found = read_images(paths, GRAY, keep_originals=True)
    assert found.prepared is None
    assert found.put_into(images) is images
    assert found.take([1]).inputs == [paths[1]]


def test_above_the_limit_of_memory_originals_are_files(paths, monkeypatch):
    size = sum(pixels.nbytes for pixels in read_images(paths, keep_originals=True).originals)
    monkeypatch.setattr(reading, "ORIGINAL_BYTES", size)
    assert read_images(paths, GRAY, keep_originals=True).originals is not None
    monkeypatch.setattr(reading, "ORIGINAL_BYTES", size - 1)
    found = read_images(paths, GRAY, keep_originals=True)
    assert found.originals is None
    assert found.put_into(image_set(paths)).original(2) is paths[2]


def test_the_limits_of_pil_are_unchanged(paths):
    before = Image.MAX_IMAGE_PIXELS
    read_images([*paths, encoded(kind="JPEG")[:40]])
    assert before == Image.MAX_IMAGE_PIXELS


def test_more_images_than_are_compared_have_no_thumbnails(paths, monkeypatch):
    whole = read_images(paths)
    assert all(info.thumbnail.shape == (32, 32) for info in whole.infos if info)
    monkeypatch.setattr("keras_vit.data.reading.LIMIT", len(paths) - 1)
    found = read_images(paths)
    assert all(info.thumbnail is None for info in found.infos if info)
    assert [info and info.digest for info in found.infos] == [info and info.digest for info in whole.infos]


def test_what_nobody_asked_for_is_not_computed(paths):
    found, whole = read_images(paths, GRAY, fingerprints=False), read_images(paths, GRAY)
    assert all(info.thumbnail is None and info.digest == b"" for info in found.infos if info)
    np.testing.assert_array_equal(found.prepared, whole.prepared)
    assert found.reasons == whole.reasons


def test_the_order_is_kept_over_several_parts(paths, monkeypatch):
    whole = read_images(paths)
    monkeypatch.setattr("keras_vit.data.reading.CHUNK", 2)
    digests = [info and info.digest for info in read_images(paths).infos]
    assert digests == [info and info.digest for info in whole.infos]


def test_an_interruption_ends_the_reading(paths, monkeypatch):
    seen = []

    def interrupted(image, *_):
        seen.append(image)
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_vit.data.reading.CHUNK", 2)
    monkeypatch.setattr("keras_vit.data.reading.probe_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_images(paths * 10)
    assert len(seen) <= 2


def test_a_bar_is_shown_on_a_terminal_only(paths, monkeypatch, capsys):
    monkeypatch.setattr("keras_vit.data.reading.SHOWN_FROM", 1)
    read_images(paths)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    read_images(paths)
    out, shown = capsys.readouterr()
    assert out == ""
    assert f"{len(paths)}/{len(paths)}" in shown or "reading images" in shown
