"""Files and folders that are written completely or not at all."""

import csv
import os
import stat

import pytest

from keras_vit.errors import InputError
from keras_vit.files import (
    make_folder,
    partial_of,
    read_json,
    remove_made,
    whole_file,
    write_csv,
    write_json,
)
from tests.helpers import tiny

pytestmark = pytest.mark.same_on_every_backend


# Complete files


def test_a_folder_whose_name_is_not_utf8_is_not_made(tmp_path):
    with pytest.raises(InputError, match=r"caf\\xe9/a has a name that is not UTF-8: choose another --to\."):
        make_folder(tmp_path / "caf\udce9" / "a", "--to")
    assert not list(tmp_path.iterdir())


def test_a_complete_file_replaces_the_earlier_one(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with whole_file(tmp_path / "a.txt") as file:
        file.write("ä new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert tiny.tree(tmp_path) == {"a.txt": "ä new".encode()}


@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()])
def test_a_failed_file_keeps_the_earlier_one(error, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")

    def write():
        with whole_file(tmp_path / "a.bin", "wb") as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert tiny.tree(tmp_path) == {"a.bin": b"old"}


def test_json_is_read_back(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, None], "b": "ä"})
    assert read_json(tmp_path / "a.json") == {"a": [1, None], "b": "ä"}
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", object())
    assert list(tiny.tree(tmp_path)) == ["a.json"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.json", None, "There is no file {path}: train again."),
        (".", None, "{path} is a folder: train again."),
        ("x" * 300, None, "{path} cannot be read (File name too long): train again."),
        ("a.json", b"{", "{path} is not JSON (Expecting property name"),
        ("a.json", b"", "{path} is not JSON (Expecting value"),
        ("a.json", b"\xff", "{path} is not JSON ('utf-8' codec can't decode"),
    ],
)
def test_files_that_are_not_json(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(tmp_path / name, "train again")
    assert str(caught.value).startswith(message.format(path=tmp_path / name))
    assert str(caught.value).endswith(": train again.")


def test_csv_has_the_columns_of_its_first_row_or_those_given(tmp_path):
    rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None}]
    write_csv(tmp_path / "a.csv", rows)
    assert (tmp_path / "a.csv").read_bytes() == b"epoch,loss\r\n1,0.5\r\n2,\r\n"
    write_csv(tmp_path / "b.csv", (row for row in rows), ["loss", "epoch"])
    with open(tmp_path / "b.csv", newline="") as file:
        assert list(csv.reader(file)) == [["loss", "epoch"], ["0.5", "1"], ["", "2"]]
    write_csv(tmp_path / "c.csv", [], ["loss"])
    assert (tmp_path / "c.csv").read_bytes() == b"loss\r\n"


# Folders


def test_made_folders_are_removed_where_they_are_empty(tmp_path):
    (tmp_path / "a").mkdir()
    made = make_folder(tmp_path / "a" / "b" / "c")
    assert made == [tmp_path / "a" / "b" / "c", tmp_path / "a" / "b"]
    assert make_folder(tmp_path / "a" / "b" / "c") == []
    remove_made([])
    assert made[0].is_dir()
    remove_made(made)
    assert tiny.tree(tmp_path) == {"a": None}
    made = make_folder(tmp_path / "a" / "b" / "c")
    (tmp_path / "a" / "b" / "mine.txt").write_text("mine")
    remove_made(made)
    assert tiny.tree(tmp_path) == {"a": None, "a/b": None, "a/b/mine.txt": b"mine"}


def test_folders_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert make_folder(tmp_path.__class__()) == []
    remove_made(make_folder(tmp_path.__class__("a/b")))
    assert tiny.tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("file", "File exists"),
        ("file/below", "Not a directory"),
        ("new/" + "x" * 300, "File name too long"),
    ],
)
def test_a_folder_that_cannot_be_made_leaves_nothing(path, reason, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError) as caught:
        make_folder(tmp_path / path, "--to")
    assert str(caught.value) == f"{tmp_path / path} cannot be made ({reason}): choose another --to."
    assert tiny.tree(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("below", ["", "new", "new/and/more"])
def test_a_folder_without_permission(below, tmp_path, monkeypatch):
    folder = tmp_path / "locked"
    folder.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    if os.access(folder, os.W_OK):  # root may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: path != folder)
    with pytest.raises(InputError) as caught:
        make_folder(folder / below)
    assert str(caught.value) == (
        f"{folder} cannot be written to: choose another --out, or change its permissions."
    )
    assert tiny.tree(tmp_path) == {"locked": None}


def test_a_partial_folder_is_a_sibling(tmp_path, monkeypatch):
    assert partial_of(tmp_path / "run") == tmp_path / "run.partial"
    monkeypatch.chdir(tmp_path)
    assert partial_of(tmp_path.__class__()) == tmp_path.with_name(tmp_path.name + ".partial")
