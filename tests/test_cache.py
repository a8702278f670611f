"""The cache folder: rows come back as they went in, whatever else happens to the folder."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_vit import cache
from keras_vit.cache import (
    FOLDER,
    LOCK,
    SIZE,
    TORCH_GRAPHS,
    RowCache,
    all_files,
    cache_folder,
    cached_files,
    clear_cache,
    hash_of,
    image_hashes,
    largest_bytes,
)
from keras_vit.errors import InputError
from keras_vit.files import work_name
from tests.helpers.image_files import encoded
from tests.helpers.paths import ROOT
from tests.test_locks import held_by_another

pytestmark = pytest.mark.same_on_every_backend

NAME = hash_of("some weights")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path / "kept"))
    monkeypatch.delenv(SIZE, raising=False)
    return tmp_path / "kept"


def rows_of(*texts, width=3):
    return {hash_of(text): np.full(width, len(text) + i, "float32") for i, text in enumerate(texts)}


def check_same(found, expected):
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        assert found[key].dtype == np.float32
        np.testing.assert_array_equal(found[key], row)


def test_rows_come_back(folder):
    first, second = rows_of("a", "bcd"), rows_of("ef", width=3)
    kept = RowCache(NAME)
    assert kept.read() == {}
    assert not folder.exists()
    kept.add(first)
    check_same(RowCache(NAME).read(), first)
    kept.add(second)
    check_same(RowCache(NAME).read(), {**first, **second})
    assert RowCache(hash_of("other weights")).read() == {}
    assert [path.name for path in cached_files(folder)] == [f"{NAME}.npz"]


def test_another_row_of_the_same_hash_replaces_the_first():
    kept = RowCache(NAME)
    kept.add({hash_of("a"): np.zeros(2, "float32")})
    kept.add({hash_of("a"): np.ones(2, "float32")})
    check_same(kept.read(), {hash_of("a"): np.ones(2, "float32")})


def test_processes_that_add_at_the_same_time_lose_nothing(folder):
    script = (
        "import sys, numpy as np\n"
        "from keras_vit.cache import RowCache, hash_of\n"
        "kept = RowCache(sys.argv[1])\n"
        "for i in range(12):\n"
        "    kept.add({hash_of(f'{sys.argv[2]} {i}'): np.full(4, i, 'float32')})\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, NAME, name], cwd=ROOT, stderr=subprocess.PIPE)
        for name in ("left", "right")
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, b"")
    expected = {
        hash_of(f"{name} {i}"): np.full(4, i, "float32") for name in ("left", "right") for i in range(12)
    }
    check_same(RowCache(NAME).read(), expected)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-30])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))


def fewer_hashes(path):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, hashes=arrays["hashes"][:1], rows=arrays["rows"])


def pickled(path):
    np.savez(path, hashes=np.array([{}], dtype=object), rows=np.zeros((1, 3)))


def of_another_tool(path):
    np.savez(path, weights=np.zeros(3))


def short_hashes(path):
    np.savez(path, hashes=np.zeros((1, 4), "uint8"), rows=np.zeros((1, 3), "float32"))


def one_array(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("nothing"),
    "truncated": truncated,
    "flipped": flipped,
    "fewer hashes than rows": fewer_hashes,
    "pickled": pickled,
    "of another tool": of_another_tool,
    "hashes that are too short": short_hashes,
    "one array": one_array,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_counts_as_empty(damage, folder):
    rows = rows_of(*map(str, range(40)))
    kept = RowCache(NAME)
    kept.add(rows)
    DAMAGES[damage](folder / f"{NAME}.npz")
    assert kept.read() == {}
    kept.add(rows)  # the next rows make it whole again
    check_same(kept.read(), rows)


def test_rows_of_another_width_count_as_none(folder):
    kept = RowCache(NAME)
    kept.add(rows_of("a", width=3))
    kept.add(rows_of("bc", width=5))
    check_same(kept.read(), rows_of("bc", width=5))


def aged(folder, name, days):
    """The file of a name, last used some days ago; its bytes."""
    RowCache(name).add(rows_of(*map(str, range(50)), width=20))
    path = folder / f"{name}.npz"
    time = path.stat().st_mtime - days * 86400
    os.utime(path, (time, time))
    return path.stat().st_size


def test_the_oldest_files_make_room(folder, monkeypatch):
    names = [hash_of(text) for text in ("old", "older", "used", "new")]
    sizes = [aged(folder, name, days) for name, days in zip(names[:3], (2, 3, 4), strict=True)]
    assert RowCache(names[2]).read()  # now it was used last
    monkeypatch.setenv(SIZE, str(2.5 * sizes[0] / 1e9))
    RowCache(names[3]).add(rows_of(*map(str, range(50)), width=20))
    assert {path.stem for path in cached_files(folder)} == {names[2], names[3]}


def test_without_room_nothing_is_kept(folder, monkeypatch):
    monkeypatch.setenv(SIZE, "0")
    kept = RowCache(NAME)
    kept.add(rows_of("a"))
    assert kept.read() == {}
    assert cached_files(folder) == []


@pytest.mark.parametrize("text", ["many", "-1", "nan", "inf", "1e999", "5 GB"])
def test_sizes_that_are_none(text, monkeypatch):
    monkeypatch.setenv(SIZE, text)
    with pytest.raises(
        InputError, match=f"{SIZE} must be a number of gigabytes, 0 or more. Received: '{text}'"
    ):
        largest_bytes()


@pytest.mark.parametrize(("text", "most"), [("", 5_000_000_000), ("0.25", 250_000_000), ("0", 0)])
def test_sizes(text, most, monkeypatch):
    monkeypatch.setenv(SIZE, text)
    assert largest_bytes() == most


def test_clear_removes_what_is_ours_only(folder):
    RowCache(NAME).add(rows_of("a"))
    size = (folder / f"{NAME}.npz").stat().st_size
    theirs = [folder / "mine.npz", folder / "notes.txt", folder / "sub" / f"{NAME}.npz"]
    theirs.append(folder / f"{'x' * 64}.npz")  # as long as a hash, but none
    (folder / "sub").mkdir()
    for path in theirs:
        path.write_text("theirs")
    assert clear_cache() == (1, size)
    assert cached_files(folder) == []
    assert all(path.read_text() == "theirs" for path in theirs)
    assert clear_cache() == (0, 0)


def test_graphs_of_torch_are_counted_and_cleared(folder):
    graph, of_others = folder / TORCH_GRAPHS / "ab" / "fx" / "x.py", folder / "torch" / "hub" / "x.pt"
    for path in (graph, of_others):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"12345")
    assert all_files(folder) == (1, 5)
    assert clear_cache() == (1, 5)
    assert not graph.parent.parent.exists()
    assert of_others.exists()


def test_no_folder_is_made_to_be_cleared(folder):
    assert clear_cache() == (0, 0)
    assert not folder.exists()


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="where Linux keeps caches")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({FOLDER: "/some/folder", "XDG_CACHE_HOME": "/other"}, Path("/some/folder")),
        ({FOLDER: "~/kept"}, Path.home() / "kept"),
        pytest.param({"XDG_CACHE_HOME": "/other"}, Path("/other/keras_vit"), marks=on_linux),
        pytest.param({}, Path.home() / ".cache" / "keras_vit", marks=on_linux),
    ],
    ids=str,
)
def test_the_folder_is_named_by_the_environment(variables, expected, monkeypatch):
    for name in (FOLDER, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == expected


def test_a_process_that_keeps_the_lock_is_waited_for_only_so_long(folder, monkeypatch):
    monkeypatch.setattr(cache, "WAIT_SECONDS", 0.1)
    kept = f"keeps the cache .* locked .process .*: wait for it, or choose another folder with {FOLDER}"
    with held_by_another(folder / LOCK), pytest.raises(InputError, match=kept):
        RowCache(NAME).add(rows_of("a"))
    RowCache(NAME).add(rows_of("a"))
    check_same(RowCache(NAME).read(), rows_of("a"))


def test_what_a_killed_process_left_is_removed(folder):
    RowCache(NAME).add(rows_of("a"))
    left = [folder / work_name(f"{NAME}.npz"), folder / f"{NAME}.npz.new"]
    mine = [folder / "mine.new", folder / work_name("mine.npz")]
    for clean in (lambda: RowCache(NAME).add(rows_of("a")), clear_cache):
        for path in (*left, *mine):
            path.write_text("half")
        clean()
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in mine)
    assert {path.name for path in folder.iterdir()} == {path.name for path in mine}


def test_a_folder_for_reading_only_is_read(monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    RowCache(NAME).add(rows_of("a"))
    monkeypatch.setattr(cache.os, "utime", refuse)
    check_same(RowCache(NAME).read(), rows_of("a"))


def test_a_folder_that_cannot_be_made(folder):
    folder.write_text("a file stands here")
    with pytest.raises(InputError) as error:
        RowCache(NAME).add(rows_of("a"))
    assert FOLDER in str(error.value)
    assert RowCache(NAME).read() == {}


# Hashes


def test_parts_are_told_from_each_other():
    parts = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc")]
    assert len({hash_of(*each) for each in parts}) == len(parts)
    assert hash_of("ä") == hash_of("ä".encode())


def test_a_file_is_known_by_its_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(0))
    (tmp_path / "b.png").write_bytes(encoded(0))
    (tmp_path / "c.png").write_bytes(encoded(1))
    a, b, c, as_bytes = image_hashes([*(tmp_path / f"{name}.png" for name in "abc"), encoded(0)])
    assert a == b == as_bytes != c
    assert len(a) == 64


def test_pixels_are_known_by_their_values_shape_and_type():
    pixels = np.arange(24, dtype="uint8").reshape(2, 12, 1)
    different = [pixels, pixels.reshape(12, 2, 1), pixels + 1, pixels.astype("float32")]
    different.append(pixels.tobytes())
    assert len(set(image_hashes(different))) == len(different)
    strided = np.repeat(pixels, 2, axis=0)[::2]
    assert image_hashes([pixels]) == image_hashes([pixels.copy()]) == image_hashes([strided])


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(
        InputError, match=r"gone\.png cannot be read \(No such file or directory\): restore it"
    ):
        image_hashes([tmp_path / "gone.png"])
