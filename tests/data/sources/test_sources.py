"""Every source of images, small and in a temporary folder, and the errors for wrong sources."""

import os
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from keras_vit.data import sources
from keras_vit.data.audit import audit_images, require_readable
from keras_vit.data.class_names import natural_key
from keras_vit.data.image_set import ImageSet
from keras_vit.data.probe import KINDS
from keras_vit.data.sources import archive, load_image_set
from keras_vit.data.sources.layout import NEU_CLASSES
from keras_vit.errors import InputError
from tests.helpers.image_files import PNG, encoded, rows
from tests.helpers.trees import pack, put

pytestmark = pytest.mark.same_on_every_backend


LAYOUTS = {
    "class folders, in natural order": (
        ["b/x_10.png", "b/x_2.png", "a/1.png"],
        [("a/1.png", "a", None), ("b/x_2.png", "b", None), ("b/x_10.png", "b", None)],
    ),
    "every suffix, in any case": (
        ["a/1.JPG", "a/2.jpeg", "a/3.Png", "b/4.bmp", "b/5.GIF", "b/6.WebP"],
        [
            (f"{k}/{n}", k, None)
            for k, n in zip("aaabbb", ["1.JPG", "2.jpeg", "3.Png", "4.bmp", "5.GIF", "6.WebP"], strict=True)
        ],
    ),
    "folders inside a class": (
        ["a/line1/1.png", "a/line2/1.png", "b/1.png"],
        [("a/line1/1.png", "a", None), ("a/line2/1.png", "a", None), ("b/1.png", "b", None)],
    ),
    "a folder round the class folders": (
        ["NEU-DET/IMAGES/a/1.png", "NEU-DET/IMAGES/b/1.png"],
        [("NEU-DET/IMAGES/a/1.png", "a", None), ("NEU-DET/IMAGES/b/1.png", "b", None)],
    ),
    "hidden files and no images": (
        [
            "a/1.png",
            "b/1.png",
            "b/.2.png",
            "__MACOSX/b/._1.png",
            "b/Thumbs.db",
            "b/notes.txt",
            ".cache/x/1.png",
        ],
        [("a/1.png", "a", None), ("b/1.png", "b", None)],
    ),
    "train, validation and test": (
        ["test/a/1.png", "train/b/1.png", "train/a/1.png", "validation/b/1.png"],
        [
            ("train/a/1.png", "a", "train"),
            ("train/b/1.png", "b", "train"),
            ("validation/b/1.png", "b", "validation"),
            ("test/a/1.png", "a", "test"),
        ],
    ),
    "the same with other spellings": (
        ["Training/a/1.png", "Training/b/1.png", "Valid/a/1.png", "TESTING/b/1.png"],
        [
            ("Training/a/1.png", "a", "train"),
            ("Training/b/1.png", "b", "train"),
            ("Valid/a/1.png", "a", "validation"),
            ("TESTING/b/1.png", "b", "test"),
        ],
    ),
    "parts with a folder of images and one of annotations": (
        [
            "D/train/images/a/1.png",
            "D/train/images/b/1.png",
            "D/val/images/a/1.png",
            "D/val/annotations/1.xml",
        ],
        [
            ("D/train/images/a/1.png", "a", "train"),
            ("D/train/images/b/1.png", "b", "train"),
            ("D/val/images/a/1.png", "a", "validation"),
        ],
    ),
    "parts whose test has one class": (
        ["train/a/x_1.png", "train/b/x_1.png", "test/a/cam_1.png", "test/a/cam_2.png"],
        [
            ("train/a/x_1.png", "a", "train"),
            ("train/b/x_1.png", "b", "train"),
            ("test/a/cam_1.png", "a", "test"),
            ("test/a/cam_2.png", "a", "test"),
        ],
    ),
    "a train folder alone": (
        ["train/a/1.png", "train/b/1.png"],
        [("train/a/1.png", "a", None), ("train/b/1.png", "b", None)],
    ),
    "classes that sound like parts": (
        ["valid/1.png", "invalid/1.png"],
        [("invalid/1.png", "invalid", None), ("valid/1.png", "valid", None)],
    ),
    "NEU's short names": (
        ["Cr_1.bmp", "In_1.bmp", "Pa_1.bmp", "PS_1.bmp", "RS_1.bmp", "Sc_10.bmp", "Sc_9.bmp"],
        [
            *(
                (f"{p}_1.bmp", name, None)
                for p, name in zip(["Cr", "In", "Pa", "PS", "RS"], NEU_CLASSES, strict=False)
            ),
            ("Sc_9.bmp", "scratches", None),
            ("Sc_10.bmp", "scratches", None),
        ],
    ),
    "NEU's long names": (
        ["crazing_1.jpg", "rolled-in_scale_12.jpg", "pitted_surface_3.jpg"],
        [
            ("crazing_1.jpg", "crazing", None),
            ("pitted_surface_3.jpg", "pitted_surface", None),
            ("rolled-in_scale_12.jpg", "rolled-in_scale", None),
        ],
    ),
    "other flat names": (["Out_1.png", "In_1.png"], [("In_1.png", "In", None), ("Out_1.png", "Out", None)]),
    "the flat files of NEU in a folder": (
        ["IMAGES/crazing_1.jpg", "IMAGES/scratches_1.jpg", "ANNOTATIONS/crazing_1.xml"],
        [("IMAGES/crazing_1.jpg", "crazing", None), ("IMAGES/scratches_1.jpg", "scratches", None)],
    ),
}


@pytest.mark.parametrize(("names", "expected"), LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_layouts(tmp_path, names, expected, packed):
    if packed:
        images = load_image_set(pack(tmp_path / "data.ZIP", *names))
        assert images.images == [PNG] * len(expected)
    else:
        images = load_image_set(str(put(tmp_path / "data", *names)))
        assert images.images == [tmp_path / "data" / row[0] for row in expected]
    assert rows(images) == expected
    assert images.labels.dtype == np.int64
    assert isinstance(images, ImageSet)
    assert images.source == str(tmp_path / ("data.ZIP" if packed else "data"))


def test_a_top_folder_in_a_zip_is_skipped_if_file_names_hold_the_class(tmp_path):
    images = load_image_set(pack(tmp_path / "x.zip", "photos/good_1.png", "photos/bad_1.png"))
    assert rows(images) == [("photos/bad_1.png", "bad", None), ("photos/good_1.png", "good", None)]


def test_natural_order():
    assert sorted(["a10", "a2", "a1b3", "a1b20", "b", "a"], key=natural_key) == [
        "a",
        "a1b3",
        "a1b20",
        "a2",
        "a10",
        "b",
    ]


def test_links_are_followed_but_not_in_a_cycle(tmp_path):
    put(tmp_path / "elsewhere", "1.png")
    put(tmp_path / "data", "a/1.png")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "circle").symlink_to(tmp_path / "data")
    os.mkfifo(tmp_path / "data" / "a" / "pipe.png")
    names = load_image_set(tmp_path / "data").names
    assert {"a/1.png", "b/1.png"} <= set(names)
    assert "a/pipe.png" not in names
    assert len(names) < 5


def test_no_source_means_the_drawn_defects_of_seed_0(monkeypatch):
    small = sources.draw_steel_defects(seed=0, images_per_class=1, size=16)
    calls = []
    monkeypatch.setattr(sources, "draw_steel_defects", lambda **options: calls.append(options) or small)
    assert load_image_set() is small
    assert calls == [{"seed": 0}]
    assert small.class_names == NEU_CLASSES


def test_no_heavy_import():
    code = (
        "import sys; from keras_vit.data import audit, sources, split; "
        "print([m for m in ('keras', 'tensorflow', 'PIL', 'tensorflow_datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def wrong_folder(*names):
    def make(tmp_path):
        (tmp_path / "data").mkdir()
        return put(tmp_path / "data", *names)

    return make


def wrong_file(name, content=b"text"):
    return lambda tmp_path: put(tmp_path, name, content=content) / name


def wrong_zip(*names, **options):
    return lambda tmp_path: pack(tmp_path / "data.zip", *names, **options)


def bomb(tmp_path):
    return pack(
        tmp_path / "data.zip",
        "a/1.png",
        "b/huge.png",
        content=bytes(11 * 1024**2),
        compression=zipfile.ZIP_DEFLATED,
    )


def encrypted(tmp_path):
    path = pack(tmp_path / "data.zip", "a/1.png", "b/1.png")
    raw = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.find(signature)
        while at >= 0:
            raw[at + offset] |= 1
            at = raw.find(signature, at + 4)
    path.write_bytes(raw)
    return path


def zip_with_wrong_size(tmp_path):
    """The directory of the zip says 100 bytes, but the file has a million."""
    path = pack(
        tmp_path / "data.zip", "a/1.png", "b/1.png", content=bytes(10**6), compression=zipfile.ZIP_DEFLATED
    )
    raw = path.read_bytes().replace(struct.pack("<I", 10**6), struct.pack("<I", 100))
    path.write_bytes(raw)
    return path


def damaged_member(tmp_path):
    path = pack(tmp_path / "data.zip", "a/1.png", "b/1.png")
    raw = bytearray(path.read_bytes())
    raw[raw.find(b"\x89PNG") + 20] ^= 0xFF
    path.write_bytes(raw)
    return path


def cut_zip(tmp_path):
    path = pack(tmp_path / "data.zip", "a/1.png", "b/1.png")
    path.write_bytes(path.read_bytes()[:-30])
    return path


WRONG = {
    "no such folder": (
        lambda tmp_path: tmp_path / "missing",
        "No such file or folder: {data}. Check the path, or give none for the drawn defects.",
    ),
    "a name that is too long": (lambda tmp_path: "x" * 5000, "cannot be opened: "),
    "empty folder": (
        wrong_folder(),
        "{data} holds no images (JPEG, PNG, BMP, GIF, WebP, TIFF, AVIF and DICOM are read). Put the",
    ),
    "empty class folders": (
        lambda tmp_path: (tmp_path / "data" / "a").mkdir(parents=True) or tmp_path / "data",
        "{data} holds no image",
    ),
    "no images": (wrong_folder("a/1.txt", "b/1.csv"), "{data} holds no image"),
    "one class only": (
        wrong_folder("scratches/1.png", "scratches/2.png"),
        '{data} holds only one class, "scratches". A classifier needs two or more: add a folder with images '
        "of another class.",
    ),
    "one class only, by file names": (wrong_folder("Cr_1.bmp"), 'holds only one class, "crazing"'),
    "one class folder is not a flat folder": (
        wrong_folder("good/cam1_001.png", "good/cam2_001.png"),
        'holds only one class, "good"',
    ),
    "names without a class": (
        wrong_folder("1.png", "holiday.png"),
        "{data} has no class folders, and the file name 1.png gives no class. Put the images of each",
    ),
    "loose images": (
        wrong_folder("a/1.png", "b/1.png", "preview.png"),
        "{data} has 1 image outside its class folders, the first preview.png. Move each into",
    ),
    "files of cameras": (
        wrong_folder("a/1.png", "b/1.cr2", "b/2.NEF"),
        "{data} holds 2 images of a kind that is not read, the first b/1.cr2 (1 .cr2, 1 .nef). JPEG, PNG, "
        "BMP, GIF, WebP, TIFF, AVIF and DICOM are read: convert the others to PNG, or remove them.",
    ),
    "no train folder": (
        wrong_folder("test/a/1.png", "val/b/1.png"),
        '{data} has the folders "test", "val" and no folder "train". Add it',
    ),
    "parts and classes mixed": (
        wrong_folder("train/a/1.png", "train/b/1.png", "c/1.png"),
        '{data} has the folders "train", and also "c". Keep only',
    ),
    "parts and loose images mixed": (
        wrong_folder("train/a/1.png", "train/b/1.png", "1.png"),
        '{data} has the folders "train", and also loose images. Keep only',
    ),
    "a class without training images": (
        wrong_folder("train/a/1.png", "train/b/1.png", "test/c/1.png"),
        '{data} has no training images of the class "c", but test images, such as test/c/1.png. Add some',
    ),
    "one image": (wrong_file("1.png", PNG), "{data} is one image. Give the folder"),
    "another kind of file": (
        wrong_file("data.tar.gz"),
        "{data} is not a folder, nor a file of a kind that is read (.zip, .npz, .csv,",
    ),
    "a text named .zip": (
        wrong_file("data.zip"),
        "{data} is not a zip file, or it was cut short: pack or download",
    ),
    "a truncated zip": (cut_zip, "{data} is not a zip file, or it was cut short"),
    "an empty zip": (wrong_zip(), "{data} holds no image"),
    "../ in a zip": (
        wrong_zip("a/1.png", "../../b/1.png"),
        "{data} holds ../../b/1.png, a name that leads out of the zip; it may be an attack. If you trust it, "
        "unpack it yourself and give the folder.",
    ),
    "..\\ in a zip": (wrong_zip("a/1.png", "..\\b\\1.png"), "a name that leads out of the zip"),
    "an absolute name in a zip": (
        wrong_zip("a/1.png", "/etc/1.png"),
        "holds /etc/1.png, a name that leads out",
    ),
    "a drive in a zip": (wrong_zip("a/1.png", "C:\\b\\1.png"), "a name that leads out of the zip"),
    "an encrypted zip": (encrypted, "{data} is encrypted, a/1.png needs a password: unpack it yourself"),
    "a zip bomb": (
        bomb,
        "bytes; it may be a zip bomb. If you trust it, unpack it yourself and give the folder.",
    ),
    "another compression": (
        wrong_zip("a/1.png", "b/1.png", compression=zipfile.ZIP_LZMA),
        "{data} holds a/1.png, packed by a method that is not read (14): unpack it yourself",
    ),
    "a zip whose headers lie": (zip_with_wrong_size, "{data} is damaged at a/1.png"),
    "a zip damaged inside": (damaged_member, "{data} is damaged at a/1.png (Bad CRC-32"),
    "a text named .npz": (wrong_file("data.npz"), "{data} is not an .npz file, or it is damaged"),
    "an unknown TFDS name": (
        lambda tmp_path: "tfds:no_such_dataset",
        "TensorFlow Datasets has no data set 'no_such_dataset'. The names are listed at "
        "https://www.tensorflow.org",
    ),
    "an unknown TFDS configuration": (
        lambda tmp_path: "tfds:mnist/nothing",
        "tfds:mnist/nothing cannot be used: ",
    ),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_sources(tmp_path, make, message):
    data = make(tmp_path)
    with pytest.raises(InputError) as error:
        load_image_set(data)
    assert message.format(data=data) in str(error.value)


def test_a_zip_that_grows_too_large_in_many_small_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "TOTAL_LIMIT", 3 * len(PNG))
    assert len(load_image_set(pack(tmp_path / "small.zip", "a/1.png", "b/1.png", "b/2.png"))) == 3
    data = pack(tmp_path / "large.zip", "a/1.png", "b/1.png", "b/2.png", "b/3.png")
    with pytest.raises(
        InputError, match=r"large.zip would grow to more than .* \(counted up to b/3.png\): unpack it"
    ):
        load_image_set(data)


def test_a_duplicate_name_in_a_zip(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = pack(tmp_path / "data.zip", "a/1.png", "b/1.png", "b/1.png")
    with pytest.raises(InputError, match=r"holds b/1.png twice: unpack"):
        load_image_set(data)


def test_unreadable_files_are_loaded_and_named_by_the_audit(tmp_path):
    """A source does not check the files of a folder. The audit names the bad files and the reasons."""
    folder = put(tmp_path / "data", "a/1.png", "a/2.png", "b/1.png")
    put(folder, "b/text.jpg", content=b"a text")
    put(folder, "b/zero.png", content=b"")
    put(folder, "a/cut.jpg", content=encoded(kind="JPEG", size=(64, 64))[:900])
    with pytest.raises(InputError) as error:
        require_readable(audit_images(load_image_set(folder)))
    assert str(error.value).splitlines()[1:] == [
        "    a/cut.jpg: cannot be decoded: cut short or damaged",
        f"    b/text.jpg: not a readable {KINDS} image, whatever its name says",
        "    b/zero.png: empty, 0 bytes",
    ]
