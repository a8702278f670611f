import os
import zipfile

import pytest
from PIL import Image

from keras_vit.data.sources.archive import ZipMember
from keras_vit.errors import InputError
from keras_vit.runs.listing import HowListed, is_many, is_pattern, list_images

pytestmark = pytest.mark.same_on_every_backend

FILES = ("2.png", "10.png", "sub/1.png", "sub/deep/3.jpg", "a [1]/4.png", ".hidden/5.png", "sub/.6.png")


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        path = tmp_path / "strips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    (tmp_path / "strips" / "notes.txt").write_text("text")
    (tmp_path / "strips" / "odd.heic").write_bytes(b"\0" * 40)
    (tmp_path / "strips" / "sub" / "round").symlink_to(tmp_path / "strips")
    return tmp_path / "strips"


def names_of(found, folder):
    return [os.path.relpath(item.name, folder) for item in found]


def test_a_folder_in_natural_order_with_what_cannot_be_read(folder):
    found = names_of(list_images([folder], ("a", "b")), folder)
    assert found == ["2.png", "10.png", "a [1]/4.png", "odd.heic", "sub/1.png", "sub/deep/3.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["2.png", "10.png"]),
        ("[12].png", ["2.png"]),
        ("**/*.png", ["2.png", "10.png", "a [1]/4.png", "sub/1.png"]),
        ("**/deep/*", ["sub/deep/3.jpg"]),
        ("s*b/**", ["sub/1.png", "sub/deep/3.jpg"]),
        ("*/*", ["a [1]/4.png", "sub/1.png"]),
        ("s?b/*.png", ["sub/1.png"]),
        ("a [1]/4.png", ["a [1]/4.png"]),  # a file of this name
    ],
)
def test_patterns(folder, pattern, expected):
    assert names_of(list_images([folder / pattern], ("a", "b")), folder) == expected


def test_what_is_a_pattern_and_what_are_many(folder):
    assert is_pattern(folder / "*.png")
    assert not is_pattern(folder / "a [1]")
    assert is_many(folder)
    assert is_many("no/such/*.png")
    assert not is_many(folder / "2.png")


def test_a_zip_is_read_member_by_member(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "strips.zip", "w") as archive:
        for name in ("b/1.png", "a/2.png", "__MACOSX/a/2.png"):
            archive.write(folder / "2.png", name)
        archive.writestr("a/notes.txt", "text")
    first, second = list_images([tmp_path / "strips.zip"], ("a", "b"))
    assert [first.name, second.name] == [
        str(tmp_path / "strips.zip" / name) for name in ("a/2.png", "b/1.png")
    ]
    assert isinstance(first.image, ZipMember)
    assert first.image.read() == (folder / "2.png").read_bytes()


def test_a_zip_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", bytes(30 * 1024**2))
    with pytest.raises(InputError, match="zip bomb"):
        list_images([tmp_path / "bomb.zip"], ("a", "b"))


def test_own_folders_are_left_out(folder):
    how = HowListed(leave_out=(folder / "sub",))
    assert names_of(list_images([folder], ("a", "b"), how), folder)[-1] == "odd.heic"


@pytest.mark.parametrize("name", ["empty", "strips/*.gif", "nosuch/**/*.png"])
def test_without_images(folder, tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        list_images([tmp_path / name], ("a", "b"))
    assert list_images([tmp_path / name], ("a", "b"), HowListed(may_be_empty=True)) == []


def test_files_keep_their_names_and_order(folder):
    given = [folder / "sub/1.png", folder / "nosuch.png", folder / "sub/1.png"]
    assert [item.name for item in list_images(given, ("a", "b"))] == [str(path) for path in given]
