"""Crops have the pixels that a viewer shows at the place of their box."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_vit.data.probe import probe_image
from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend


def write(folder, pixels, name="1.png", **options):
    Image.fromarray(pixels).save(folder / name, **options)


def load(folder, *boxes):
    lines = [f'1.png,{"ab"[i % 2]},"{box}"\n' for i, box in enumerate(boxes)]
    (folder / "labels.csv").write_text("path,label,bbox\n" + "".join(lines))
    return load_image_set(folder / "labels.csv")


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)], ids=["gray", "RGB", "RGBA"])
def test_the_pixels_are_those_of_the_file(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write(tmp_path, pixels)
    found = load(tmp_path, "3,5,10,7", "[0, 0, 30, 20]", "28 18 9 9")
    assert found.names == ("1.png#2", "1.png#3", "1.png#1")
    wanted = [pixels[5:12, 3:13], pixels[18:, 28:], pixels]
    for encoded, part in zip(found.images, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), part)
    assert any("1 box cut at the edge" in note for note in found.notes)


def test_16_bits_stay(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16)
    write(tmp_path, pixels)
    found = load(tmp_path, "3,5,10,7", "0,0,2,2")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(found.images[1]))), pixels[:2, :2])
    info, read = probe_image(found.images[0])
    assert info.bits == 16
    np.testing.assert_allclose(read[..., 0] * 257, pixels[5:12, 3:13], atol=0.01)


def test_an_image_is_turned_before_it_is_cropped(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path, pixels, exif=exif)
    found = load(tmp_path, "0,0,20,30", "1,2,3,4")
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(found.images[1]))), np.rot90(pixels, -1)[2:6, 1:4]
    )


def test_whole_images_beside_crops_and_files_that_cannot_be_read(tmp_path):
    write(tmp_path, np.zeros((8, 8), np.uint8))
    (tmp_path / "2.png").write_bytes(b"text")
    (tmp_path / "labels.csv").write_text('path,label,bbox\n1.png,a,\n1.png,b,"1,1,2,2"\n2.png,b,"1,1,2,2"\n')
    found = load_image_set(tmp_path / "labels.csv")
    assert found.names == ("1.png", "1.png#1", "2.png#1")
    assert [found.images[0], found.images[2]] == [(tmp_path / "1.png").read_bytes(), b"text"]


WRONG = {
    "two labels for a box": (("1,1,2,2", "1,1,2,2"), "two labels"),
    "text": (("x", "1,1,2,2"), "a box in line 2 that is not x,y,w,h"),
    "three numbers": (("1,1,2", "1,1,2,2"), "a box in line 2 that is not x,y,w,h"),
    "infinite": (("1,1,inf,2", "1,1,2,2"), "a box without an area in line 2"),
    "outside": (("1,1,2,2", "-5,0,5,5"), r"a box outside its image in line 3 .*8 x 8 pixels"),
}


@pytest.mark.parametrize(("boxes", "told"), WRONG.values(), ids=WRONG)
def test_wrong_boxes(tmp_path, boxes, told):
    write(tmp_path, np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match=told):
        load(tmp_path, *boxes)
