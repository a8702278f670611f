"""What is read of the files of trials and processes, whose sizes nobody limits."""

import os

import pytest

from keras_vit.search.token import make_token, read_token
from keras_vit.search.trial_files import last_line

pytestmark = pytest.mark.same_on_every_backend


def made(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"first\nlast\n", "last"),
        (b"first\nlast", "last"),
        (b"first\n\n \n", "first"),
        (b"first\r\nlast\r\n", "last"),
        (b"caf\xe9\n", "caf\ufffd"),
        (b"\n\n", None),
        (b"", None),
    ],
)
def test_the_last_line_that_is_not_empty(content, expected, tmp_path):
    assert last_line(made(tmp_path / "log", content)) == expected


def test_only_the_end_of_a_long_log_is_read(tmp_path):
    log = made(tmp_path / "log", b"first\n")
    os.truncate(log, 2**35)  # it takes no room on the disk, and has more bytes than the memory
    with open(log, "ab") as file:
        file.write(b"\nThe disk is full.\n")
    assert last_line(log) == "The disk is full."


def test_nothing_but_a_file_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "missing"):
        assert last_line(path) is None


def test_a_pipe_is_not_taken_for_the_secret_of_a_search(tmp_path):
    os.mkfifo(tmp_path / "token")
    assert read_token(tmp_path) is None
    assert make_token(tmp_path) == read_token(tmp_path)
    assert (tmp_path / "token").is_file()
