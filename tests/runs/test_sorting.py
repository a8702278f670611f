import errno
import os

import pytest

from keras_vit.errors import InputError
from keras_vit.runs import sorting
from keras_vit.runs.listing import Listed
from keras_vit.runs.predictions import Prediction
from keras_vit.runs.sorting import Sorter, folder_names, require_linkable, require_movable

pytestmark = pytest.mark.same_on_every_backend

HARD = (
    "a/b",
    "a_b",
    "..",
    ".",
    "con",
    "NUL.txt",
    ".git",
    "x" * 300,
    "x" * 301,
    "_rejected",
    "A",
    "a",
    "dot.",
    "é" * 90,
)


def test_folders_of_any_class_name_are_legal_and_different(tmp_path):
    found = folder_names(HARD)
    assert found["a_b"] == "a_b"  # legal names stay
    assert found["a/b"] == "a_b_2"
    assert found["_rejected"] == "_rejected_2"
    folded = [name.casefold() for name in found.values()]
    assert len(set(folded)) == len(HARD)
    for name in found.values():
        (tmp_path / name).mkdir()
        assert not name.startswith(".")
        assert len(name.encode()) <= 120
    assert len(list(tmp_path.iterdir())) == len(HARD)


def answer(label="a", confidence=0.99, **more):
    return Prediction("1.png", label, confidence, {"a": 0.99, "b": 0.01}, **more)


@pytest.mark.parametrize(
    ("found", "folder"),
    [
        (answer(), "a"),
        (answer("b"), "b"),
        (answer(confidence=0.5), "_unsure"),
        (answer(reject=True, refer=True, confidence=0.1), "_rejected"),
        (answer(refer=True, confidence=0.1), "_refer"),
        (answer(None, None, error="damaged", reject=True, refer=True), "_unreadable"),
    ],
)
def test_where_an_image_belongs(tmp_path, found, folder):
    (tmp_path / "1.png").write_bytes(b"x")
    sorter = Sorter(tmp_path / "out", "copy", ("a", "b"), 0.9)
    assert sorter.target_of(Listed("1.png", tmp_path / "1.png"), found) == f"{folder}/1.png"


def test_a_file_that_cannot_be_opened_stays(tmp_path):
    sorter = Sorter(tmp_path, "move", ("a", "b"))
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("nosuch.png", "pipe.png"):
        item = Listed(name, tmp_path / name)
        assert sorter.target_of(item, answer(None, None, error="cannot be opened")) is None


def test_names_that_are_taken_get_numbers(tmp_path):
    sorter = Sorter(tmp_path, "copy", ("a", "b"))
    names = ("x/1.png", "y/1.png", "z/1_2.png", "w/1.PNG", "v/" + "l" * 250 + ".png")
    found = [sorter.target_of(Listed(name, tmp_path / name), answer()) for name in names]
    assert found[:4] == ["a/1.png", "a/1_2.png", "a/1_2_2.png", "a/1_3.PNG"]
    assert len(os.fsencode(os.path.basename(found[4]))) <= 200


@pytest.mark.parametrize("how", ["copy", "move", "link"])
@pytest.mark.parametrize("across", [False, True])
def test_placing_a_file_twice_is_as_once(tmp_path, monkeypatch, how, across):
    source, folder = tmp_path / "1.png", tmp_path / "out"
    source.write_bytes(b"content")
    os.utime(source, ns=(10**18, 10**18))
    folder.mkdir()
    if across:
        rename = os.rename

        def refuse(old, new):
            if os.path.dirname(old) != os.path.dirname(new):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            rename(old, new)

        monkeypatch.setattr(sorting.os, "rename", refuse)
    sorter = Sorter(folder, how, ("a", "b"))
    for _ in range(2):
        sorter.place(source, "a/1.png")
    assert (folder / "a/1.png").read_bytes() == b"content"
    assert (folder / "a/1.png").is_symlink() == (how == "link")
    assert source.exists() == (how != "move")
    assert (folder / "a/1.png").stat().st_mtime_ns == 10**18
    assert os.listdir(folder / "a") == ["1.png"]


def test_a_move_that_was_cut_off_after_its_copy_ends(tmp_path):
    (tmp_path / "out/a").mkdir(parents=True)
    for path in ("1.png", "out/a/1.png"):
        (tmp_path / path).write_bytes(b"content")
    Sorter(tmp_path / "out", "move", ("a", "b")).place(tmp_path / "1.png", "a/1.png")
    assert not (tmp_path / "1.png").exists()
    (tmp_path / "1.png").write_bytes(b"another image of the same name")
    Sorter(tmp_path / "out", "move", ("a", "b")).place(tmp_path / "1.png", "a/1.png")
    assert (tmp_path / "1.png").read_bytes() == b"another image of the same name"
    assert (tmp_path / "out/a/1.png").read_bytes() == b"content"


@pytest.mark.parametrize("how", ["copy", "move"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, how):
    source, folder = tmp_path / "1.png", tmp_path / "out"
    source.write_bytes(b"content")
    folder.mkdir()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def other_disk(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(sorting.shutil, "copyfileobj", full)
    monkeypatch.setattr(sorting.os, "rename", other_disk)
    with pytest.raises(OSError, match="No space"):
        Sorter(folder, how, ("a", "b")).place(source, "a/1.png")
    assert source.read_bytes() == b"content"
    assert os.listdir(folder / "a") == []


def test_what_cannot_be_moved_or_linked(tmp_path, monkeypatch):
    (tmp_path / "1.png").write_bytes(b"x")
    (tmp_path / "link.png").symlink_to(tmp_path / "1.png")
    require_movable([Listed("1.png", tmp_path / "1.png")])
    require_linkable([Listed("link.png", tmp_path / "link.png")])
    with pytest.raises(InputError, match=r"link\.png is a symbolic link: use --copy"):
        require_movable([Listed("link.png", tmp_path / "link.png")])
    with pytest.raises(InputError, match="can only be copied"):
        require_movable([Listed("zip/1.png", b"x")])
    with pytest.raises(InputError, match="use --copy"):
        require_linkable([Listed("zip/1.png", b"x")])
    monkeypatch.setattr(sorting.os, "access", lambda *_: False)
    with pytest.raises(InputError, match="cannot be written to"):
        require_movable([Listed("1.png", tmp_path / "1.png")])
