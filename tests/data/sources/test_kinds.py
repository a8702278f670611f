"""Which files are read as images, what is said of the others, and class folders without images."""

import io
import os
import socket
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vit.data.sources import load_image_set
from keras_vit.data.sources.folder import list_images
from keras_vit.data.sources.kinds import HEAD_BYTES, kind_of
from keras_vit.errors import InputError
from tests.helpers.image_files import PNG, encoded
from tests.helpers.short_folder import short_folder
from tests.helpers.trees import pack, put

pytestmark = pytest.mark.same_on_every_backend


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_the_first_bytes_tell_the_kind(kind, mode):
    """As Pillow writes it."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).convert(mode)
    try:
        image.save(buffer, kind)
    except (OSError, KeyError):
        pytest.skip(f"Pillow writes no {kind} in mode {mode}")
    assert kind_of(buffer.getvalue()[:HEAD_BYTES]) == kind


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"BM",
        b"BMW is a maker of cars and motorcycles",
        b"P1 is the first pump\n",
        b"%PDF-1.7",
        b"GIF",
        b"RIFF....WAVE",
        b"\0\0\0\x18ftypmp42",
        b"II",
        b"PK\x03\x04",
        b"\x00\x05\x16\x07",
        b"<svg>",
        bytes(132),
    ],
)
def test_other_files_are_not_images(head):
    assert kind_of(head) is None


NAMES = [
    "a/1",
    "a/2.jfif",
    "a/3.JPE",
    "a/4.bak",
    "a/5.dat",
    "b/1.txt.old",
    "b/2.png~",
    "b/3.tmp",
    "b/4.jpg.1",
]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_images_are_read_whatever_their_names(tmp_path, caplog, packed):
    content = encoded(kind="JPEG")
    data = tmp_path / "d.zip"
    if packed:
        pack(data, *NAMES, content=content)
    else:
        put(data, *NAMES, content=content)
    images = load_image_set(data)
    assert sorted(images.names) == sorted(NAMES)
    assert "read as images by their content, not by their names: " in caplog.text
    assert "1 .1 (b/4.jpg.1), 1 .bak (a/4.bak), 1 .dat (a/5.dat), 1 .old, 1 .png~" in caplog.text
    assert ".jfif" not in caplog.text


def test_what_is_skipped_is_counted_by_suffix_with_examples(tmp_path, caplog):
    names = ["a/1.png", "b/1.png", "a/1.xml", "b/1.xml", "readme.md", "b/.2.png"]
    assert len(load_image_set(put(tmp_path / "d", *names))) == 2
    assert "skipped 4 files: 2 .xml (such as a/1.xml), 1 .md (readme.md), 1 hidden (b/.2.png)" in caplog.text


def test_thousands_of_suffixes_make_one_short_line(tmp_path):
    names = [f"a/x.t{i}.txt"[:-4] for i in range(50)]
    (note,) = load_image_set(put(tmp_path / "d", "a/1.png", "b/1.png", *names, content=PNG)).notes[:1]
    assert len(note) < 300
    assert "others" in note


SYSTEM = [
    "@eaDir/a/1.png", "a/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "a/.@__thumb/1.png", "a/._1.png", "a/Thumbs.db",
    ".DS_Store", "__MACOSX/a/._1.png", "a/desktop.ini", "$RECYCLE.BIN/1.png", "#recycle/a/1.png",
    ".ipynb_checkpoints/1.png", "System Volume Information/1.png", "a/THUMBS.DB", "@Recycle/1.png",
]  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_what_systems_and_network_drives_write_does_not_count(tmp_path, caplog, packed):
    names = ["a/1.png", "b/1.png", *SYSTEM]
    images = load_image_set(pack(tmp_path / "d.zip", *names) if packed else put(tmp_path / "d", *names))
    assert images.names == ("a/1.png", "b/1.png")
    assert images.class_names == ("a", "b")
    assert not caplog.text


EMPTY = {
    "empty": (["a/1.png", "b/1.png", "c/"], "c (empty)"),
    "with texts": (["a/1.png", "b/1.png", "c/1.txt", "c/2.txt"], "c (2 .txt)"),
    "with the files of a system": (["a/1.png", "b/1.png", "c/.DS_Store"], "c (empty)"),
    "beside one class with folders": (["a/x/1.png", "a/y/1.png", "c/"], "c (empty)"),
    "in the train part": (["train/a/1.png", "train/b/1.png", "train/c/"], "train/c (empty)"),
    "in a test part, of a class of its own": (
        ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/"],
        "test/c",
    ),
    "inside": (["top/a/1.png", "top/b/1.png", "top/c/x/y/"], "top/c (empty)"),
}


@pytest.mark.parametrize(("names", "told"), EMPTY.values(), ids=EMPTY.keys())
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_class_in_which_nothing_is_read_is_refused(tmp_path, names, told, packed):
    data = pack(tmp_path / "d.zip", *names) if packed else put(tmp_path / "d", *names)
    with pytest.raises(InputError) as error:
        load_image_set(data)
    assert f"has folders in which no image can be read: {told}" in str(error.value)


def test_a_class_without_test_images_and_an_empty_part_are_announced(tmp_path, caplog):
    names = ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/", "val/"]
    assert len(load_image_set(put(tmp_path / "d", *names))) == 3
    assert "no images in the folder test/b" in caplog.text
    assert "no images in the folder val" in caplog.text


def test_folders_of_annotations_are_no_classes(tmp_path):
    names = ["a/1.png", "b/1.png", "annotations/1.xml", "docs/1.txt"]
    assert load_image_set(put(tmp_path / "d", *names)).class_names == ("a", "b")


def test_a_raw_file_beside_its_jpeg_is_skipped_and_alone_refused(tmp_path, caplog):
    folder = put(tmp_path / "d", "a/1.png", "b/1.png", "a/1.CR2")
    assert len(load_image_set(folder)) == 2
    assert "skipped 1 file: 1 .cr2 (a/1.CR2)" in caplog.text
    put(folder, "b/7.nef")
    with pytest.raises(
        InputError, match=r"holds 1 image of a kind that is not read, the first b/7\.nef \(1 \.nef\)"
    ):
        load_image_set(folder)


def test_a_picture_of_a_phone_under_another_name_is_refused(tmp_path):
    folder = put(tmp_path / "d", "a/1.png", "b/1.png")
    (folder / "b/2.dat").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    with pytest.raises(InputError, match=r"holds 1 image of a kind that is not read, the first b/2\.dat"):
        load_image_set(folder)


def test_special_files_are_not_opened_and_counted(caplog):
    with short_folder() as folder:
        put(folder / "d", "a/1.png", "b/1.png")
        os.mkfifo(folder / "d/a/pipe.png")
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(folder / "d/a/s"))
        (folder / "d/b/zero").symlink_to("/dev/zero")
        (folder / "d/b/loop").symlink_to("loop")
        with open(folder / "d/b/sparse", "wb") as file:
            file.truncate(10**12)
        images = load_image_set(folder / "d")
        assert images.names == ("a/1.png", "b/1.png")
        assert list(list_images(folder / "d")[0]) == ["a/1.png", "b/1.png"]
    assert "3 pipe, socket or device (such as a/pipe.png)" in caplog.text
    assert "1 broken link (b/loop)" in caplog.text


@pytest.mark.parametrize("name", ["pipe", "pipe.npz", "pipe.zip"])
def test_a_pipe_as_the_source_is_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read: a pipe, not a regular file"):
        load_image_set(tmp_path / name)


def test_a_device_as_the_source_is_refused():
    with pytest.raises(InputError, match="cannot be read: a device, not a regular file"):
        load_image_set("/dev/zero")


def test_a_folder_that_is_there_twice_is_refused(tmp_path):
    folder = put(tmp_path / "d", "a/1.png", "b/1.png")
    (folder / "c").symlink_to(folder / "a")
    with pytest.raises(
        InputError, match=r"holds one folder twice, as .* and as .*: its images would count twice"
    ):
        load_image_set(folder)
    assert len(list_images(folder)[0]) == 2


def test_links_that_double_at_every_level_end(tmp_path):
    """2 ** 30 paths lead to the same images."""
    folder = put(tmp_path / "d", "a/1.png", "b/1.png")
    last = folder
    for i in range(30):
        (last / f"x{i}").mkdir()
        (last / f"y{i}").symlink_to(last / f"x{i}")
        last = last / f"x{i}"
    with pytest.raises(InputError, match="holds one folder twice"):
        load_image_set(folder)
    assert len(list_images(folder)[0]) == 2


@pytest.mark.long
def test_folders_nested_more_deeply_than_python_recurses(tmp_path):
    put(tmp_path / "d", "a/1.png", "b/1.png")
    here = os.getcwd()
    try:
        os.chdir(tmp_path / "d/a")
        for _ in range(1100):
            os.mkdir("x")
            os.chdir("x")
        os.chdir(here)
        assert len(load_image_set(tmp_path / "d")) == 2
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # pytest would recurse


def test_a_broken_link_to_an_image_is_kept_for_the_audit(tmp_path):
    folder = put(tmp_path / "d", "a/1.png", "b/1.png")
    (folder / "b/2.png").symlink_to(folder / "gone.png")
    assert load_image_set(folder).images == [folder / name for name in ("a/1.png", "b/1.png", "b/2.png")]


def test_links_in_a_zip_are_not_followed(tmp_path, caplog):
    path = pack(tmp_path / "d.zip", "a/1.png", "b/1.png")
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("a/2.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert load_image_set(path).names == ("a/1.png", "b/1.png")
    assert "skipped 1 file: 1 link or device (a/2.png)" in caplog.text


def test_the_path_of_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "d", "a/1.png", "b/1.png")
    assert load_image_set(Path("~/d")).images[0] == tmp_path / "d/a/1.png"
