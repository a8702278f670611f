"""Names of files, folders and members of zips in any encoding, and what becomes of them."""

import os
import struct
import unicodedata
import zipfile
import zlib

import pytest

from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from tests.helpers.image_files import PNG
from tests.helpers.trees import pack, put

pytestmark = pytest.mark.same_on_every_backend


def put_bytes(folder, *names):
    """Files whose names are any bytes."""
    for name in names:
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(PNG)
    return folder


def test_file_names_that_are_not_utf8(tmp_path):
    folder = put_bytes(tmp_path / "d", b"a/caf\xe9.png", b"a/x.png", b"b/\xff\xfe.png", b"b/1\n2.png")
    images = load_image_set(folder)
    assert images.names == ("a/caf\\xe9.png", "a/x.png", "b/1\\n2.png", "b/\\xff\\xfe.png")
    assert all(image.read_bytes() == PNG for image in images.images)
    assert images.class_names == ("a", "b")
    images.fingerprint()


def test_names_that_are_escaped_to_the_same_text_stay_apart(tmp_path):
    images = load_image_set(put_bytes(tmp_path / "d", b"a/\xe9.png", b"a/\\xe9.png", b"b/1.png"))
    assert len(set(images.names)) == 3


def test_a_class_whose_name_is_not_utf8(tmp_path, caplog):
    images = load_image_set(put_bytes(tmp_path / "d", b"caf\xe9/1.png", b"b/1.png"))
    assert images.class_names == ("b", "caf\\xe9")
    assert "is not one line of printable text: it is called" in caplog.text


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\x1b[31m", "a\u202eb", "a\u2028b", "a\tb"])
def test_a_class_with_control_characters_is_one_printable_line(tmp_path, caplog, name):
    images = load_image_set(put(tmp_path / "d", f"{name}/1.png", "z/1.png"))
    (escaped,) = [known for known in images.class_names if known != "z"]
    assert escaped.isprintable()
    assert escaped.startswith("a\\")
    assert "is not one line of printable text" in caplog.text


def test_a_class_of_spaces_is_refused(tmp_path):
    with pytest.raises(InputError, match='name " " gives a class without a name'):
        load_image_set(put(tmp_path / "d", " /1.png", "a/1.png"))


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_one_class_in_two_unicode_forms(tmp_path, caplog, packed):
    nfc, nfd = "Gr\xf6\xdfe", unicodedata.normalize("NFD", "Gr\xf6\xdfe")
    names = [f"train/{nfc}/1.png", "train/b/1.png", f"test/{nfd}/1.png", "test/b/1.png"]
    images = load_image_set(pack(tmp_path / "d.zip", *names) if packed else put(tmp_path / "d", *names))
    assert images.class_names == (nfc, "b") or images.class_names == ("b", nfc)
    assert [images.class_names[label] for label in images.labels].count(nfc) == 2
    assert "are the same name, written in several ways: read as one class" in caplog.text


def test_classes_in_natural_order(tmp_path):
    names = [f"{number}/1.png" for number in (1, 2, 10, 11, 9)]
    assert load_image_set(put(tmp_path / "d", *names)).class_names == ("1", "2", "9", "10", "11")


# Zips


def pack_raw(path, members, system=3, flag=0):
    """A zip whose names are these bytes, without the flag for UTF-8; zipfile would set it."""
    with zipfile.ZipFile(path, "w") as archive:
        for i, (_, extra) in enumerate(members):
            info = zipfile.ZipInfo(f"{i:06}.{'x' * (len(members[i][0]) - 7)}")
            info.create_system, info.extra = system, extra
            archive.writestr(info, PNG)
    raw = path.read_bytes()
    for i, (name, _) in enumerate(members):
        raw = raw.replace(f"{i:06}.{'x' * (len(name) - 7)}".encode(), name)
    if flag:
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = raw.find(signature)
            while at >= 0:
                raw = raw[: at + offset] + struct.pack("<H", flag) + raw[at + offset + 2 :]
                at = raw.find(signature, at + 4)
    path.write_bytes(raw)
    return path


def unicode_path(raw, text):
    content = b"\x01" + struct.pack("<L", zlib.crc32(raw)) + text.encode()
    return struct.pack("<HH", 0x7075, len(content)) + content


ENCODINGS = {
    "UTF-8 without the flag": ([("Größe/1.png".encode(), b"")], {}, "Größe"),
    "Japanese in UTF-8 without the flag": ([("傷/1111.png".encode(), b"")], {}, "傷"),
    "cp437": ([("Größe/1.png".encode("cp437"), b"")], {"system": 0}, "Größe"),
    "UTF-8 with the flag": ([("Größe/1.png".encode(), b"")], {"flag": 0x800}, "Größe"),
    "a name beside it": (
        [(b"Gr__e/1.png", unicode_path(b"Gr__e/1.png", "Größe/1.png"))],
        {"system": 0},
        "Größe",
    ),
    "a name beside it, of another": (
        [(b"Gross/1.png", unicode_path(b"other", "Größe/1.png"))],
        {"system": 0},
        "Gross",
    ),
}


@pytest.mark.parametrize(("members", "options", "name"), ENCODINGS.values(), ids=ENCODINGS.keys())
def test_names_of_zips_are_decoded_as_their_writers_meant(tmp_path, members, options, name):
    members = [*members, (b"other/1.png", b"")]
    images = load_image_set(pack_raw(tmp_path / "d.zip", members, **options))
    assert set(images.class_names) == {name, "other"}


def test_names_read_as_cp437_are_named(tmp_path, caplog):
    members = [("Größe/1.png".encode("latin-1"), b""), (b"other/1.png", b"")]
    load_image_set(pack_raw(tmp_path / "d.zip", members))
    assert "names in the zip that are not UTF-8 were read as cp437 (1), such as Gr" in caplog.text


def test_a_name_that_claims_to_be_utf8_and_is_not(tmp_path):
    members = [("Größe/1.png".encode("latin-1"), b""), (b"other/1.png", b"")]
    with pytest.raises(InputError, match="is not a zip file, or it was cut short"):
        load_image_set(pack_raw(tmp_path / "d.zip", members, flag=0x800))


@pytest.mark.parametrize("system", [0, 3, 10])
def test_separators_of_windows(tmp_path, system):
    members = [(b"top\\a\\1.png", b""), (b"top\\b\\1.png", b"")]
    images = load_image_set(pack_raw(tmp_path / "d.zip", members, system))
    assert images.class_names == ("a", "b")
    assert images.names == ("top/a/1.png", "top/b/1.png")


def test_a_backslash_of_unix_is_part_of_a_name(tmp_path):
    images = load_image_set(pack(tmp_path / "d.zip", "a/x\\1.png", "b/1.png"))
    assert images.names == ("a/x\\1.png", "b/1.png")


@pytest.mark.parametrize(
    "name",
    [b"..\\..\\b\\1.png", b"a\\..\\..\\1.png", b"\\\\host\\b\\1.png", b"C:\\b\\11.png", b"/etc/b/1.png"],
)
@pytest.mark.parametrize("system", [0, 3])
def test_names_that_lead_out_are_refused_with_either_separator(tmp_path, name, system):
    with pytest.raises(InputError, match="a name that leads out of the zip"):
        load_image_set(pack_raw(tmp_path / "d.zip", [(b"a/11111.png", b""), (name, b"")], system))


def test_a_name_in_both_separators_is_there_twice(tmp_path):
    members = [(b"a\\1.png", b""), (b"a/1.png", b""), (b"b/1.png", b"")]
    with pytest.raises(InputError, match=r"holds a/1\.png twice"):
        load_image_set(pack_raw(tmp_path / "d.zip", members, system=0))


def test_an_empty_class_folder_in_a_zip_of_windows(tmp_path):
    members = [(b"a\\1.png", b""), (b"b\\1.png", b""), (b"folder\\", b"")]
    with pytest.raises(InputError, match=r"no image can be read: folder \(empty\)"):
        load_image_set(pack_raw(tmp_path / "d.zip", members, system=0))
