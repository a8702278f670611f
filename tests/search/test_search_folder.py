"""The folder of a search: one command at a time, the same settings and images, nothing left after errors."""

import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from keras_vit.cli.main import parse
from keras_vit.errors import InputError
from keras_vit.files import work_name
from keras_vit.search import folder
from keras_vit.search.config import WHERE, SearchConfig, to_dict
from keras_vit.search.folder import (
    add_wall_seconds,
    begin_or_continue,
    command_of,
    locked,
    logs,
    wall_seconds,
    write_or_check_images,
)
from keras_vit.search.results import SEARCH
from tests.helpers import tiny
from tests.search.running import case_name
from tests.search.test_search_config import FULL, SEARCH_FIELDS

pytestmark = pytest.mark.same_on_every_backend

IMAGES = SimpleNamespace(
    image_set=SimpleNamespace(source="my images", class_names=("dots", "lines"), fixes=()),
    counts={"train": 70, "validation": 10, "test": 20},
    fingerprint="abc",
    backend="tensorflow",
    record=None,
)


def changed(**changes):
    return SimpleNamespace(**{**vars(IMAGES), **changes})


# The lock

HOLD_LOCK = """
import sys
from pathlib import Path
from keras_vit.search.folder import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time(tmp_path):
    out = tmp_path / "new" / "search"
    command = [sys.executable, "-c", HOLD_LOCK, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError) as caught, locked(out):
            pass
        assert str(caught.value).startswith(f"Another search is running in {out} (process {other.pid} on ")
        assert str(caught.value).endswith("): wait for it, or choose another --out.")
        assert (out / "lock").is_file()
        other.kill()
    with locked(out), pytest.raises(InputError, match="Another search is running"), locked(out):
        pass
    with locked(out):
        pass


@pytest.mark.parametrize(
    ("name", "reason"), [("file", "File exists"), ("file/below", "Not a directory"), ("x" * 300, "too long")]
)
def test_paths_that_cannot_be_a_folder(name, reason, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError) as caught, locked(tmp_path / name):
        pass
    assert str(caught.value).startswith(f"{tmp_path / name} cannot be made (")
    assert reason in str(caught.value)
    assert str(caught.value).endswith("): choose another --out.")
    assert tiny.tree(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("errno_of", ["ENOLCK", "ENOTSUP"])
def test_a_disk_without_locks_is_used(errno_of, tmp_path, monkeypatch):
    import errno
    import fcntl

    def refuse(*_):
        raise OSError(getattr(errno, errno_of), "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "search"):
        assert (tmp_path / "search").is_dir()


def start(out, error, images=None):
    """A search that ends with an error."""
    with locked(out):
        logs(out)
        (out / "logs" / "images.log").write_text("no such images")
        if images:
            write_or_check_images(SearchConfig(out=out), images)
        raise error


@pytest.mark.parametrize("existing", ["nothing", "a folder above", "an empty folder", "things"])
def test_an_input_error_leaves_the_disk_unchanged(existing, tmp_path):
    out = tmp_path / "searches" / "steel"
    if existing == "a folder above":
        out.parent.mkdir()
    elif existing != "nothing":
        out.mkdir(parents=True)
    if existing == "things":
        (out / "mine.txt").write_text("mine")
    before = tiny.tree(tmp_path)
    with pytest.raises(InputError, match="a mistake"):
        start(out, InputError("a mistake"))
    assert tiny.tree(tmp_path) == before


def test_other_errors_and_a_started_search_leave_the_folder(tmp_path):
    for error in (RuntimeError("see the log"), KeyboardInterrupt()):
        out = tmp_path / type(error).__name__
        with pytest.raises(type(error)):
            start(out, error)
        assert (out / "logs" / "images.log").is_file()
        with pytest.raises(InputError, match="of a later start"), locked(out):
            raise InputError("of a later start")
        assert (out / "logs" / "images.log").is_file()
    out = tmp_path / "started"
    with pytest.raises(InputError, match="a worker's"):
        start(out, InputError("a worker's"), IMAGES)
    assert {path.name for path in out.iterdir()} == {SEARCH, "logs"}


def test_a_lock_is_taken_in_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="x"), locked(Path("searches/steel")):
        raise InputError("x")
    with pytest.raises(InputError, match="x"), locked(Path()):
        raise InputError("x")
    assert tiny.tree(tmp_path) == {}


@pytest.mark.parametrize("is_shared", [False, True], ids=["one machine", "several machines"])
def test_what_a_killed_search_left_is_removed(is_shared, tmp_path):
    """The files of a trial may be another machine's, whose worker is at work."""
    trial = tmp_path / "trial_0000"
    trial.mkdir()
    for below in (tmp_path, trial):
        (below / work_name("result.json")).write_text("half")
    (tmp_path / work_name(".compiled")).mkdir()
    before = tiny.tree(tmp_path)
    with locked(tmp_path, is_shared):
        assert tiny.tree(tmp_path).keys() - {"lock"} == before.keys()  # no search: it may be anyone's folder
    (tmp_path / SEARCH).write_text("{}")
    with locked(tmp_path, is_shared):
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {SEARCH, "trial_0000", "lock"}
    assert len(list(trial.iterdir())) == is_shared


# Its settings


def start_search(out, **given):
    config = SearchConfig(out=out, **given)
    with locked(out):
        config = begin_or_continue(config)
        logs(out)
        write_or_check_images(config, IMAGES)
    return config


def test_a_new_search_has_the_settings_given(tmp_path):
    config = SearchConfig(out=tmp_path, resume=False)
    logs(tmp_path)
    with locked(tmp_path):
        assert begin_or_continue(config) is config


def test_a_search_continues_with_its_settings(tmp_path):
    config = start_search(tmp_path, max_epochs=9, freeze=("depth=2",), data="my images", workers=3)
    found = begin_or_continue(SearchConfig(out=tmp_path, max_trials=4, max_minutes=3.0))
    assert found == dataclasses.replace(config, workers=None, max_trials=4, max_minutes=3.0)
    with pytest.raises(InputError, match="was started with max_epochs=9, not 3: omit --max-epochs"):
        begin_or_continue(SearchConfig(out=tmp_path, max_epochs=3))


def test_no_resume_refuses_a_search(tmp_path):
    start_search(tmp_path)
    with pytest.raises(InputError) as caught:
        begin_or_continue(SearchConfig(out=tmp_path, resume=False))
    assert str(caught.value) == (
        f"{tmp_path} holds a search: omit --no-resume to continue it, or choose another --out."
    )


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError) as caught, locked(tmp_path):
        begin_or_continue(SearchConfig(out=tmp_path))
    assert str(caught.value) == f"{tmp_path} holds other things (photos): choose another --out."
    assert tiny.tree(tmp_path) == {"photos": None}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "null", '"text"', "{}", '{"asked": {}}'),
        b"\xff\xfe",
        lambda found: {**found, "asked": {}},
        lambda found: {**found, "asked": None},
        lambda found: {**found, "asked": {**found["asked"], "new": 1}},
        lambda found: {**found, "asked": {**found["asked"], "max_epochs": "many"}},
        lambda found: {name: value for name, value in found.items() if name != "backend"},
        lambda found: {name: value for name, value in found.items() if name != "fingerprint"},
    ],
    ids=case_name,
)
def test_a_damaged_file_is_an_error(text, tmp_path):
    start_search(tmp_path)
    file = tmp_path / SEARCH
    if callable(text):
        text = json.dumps(text(json.loads(file.read_text())))
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        begin_or_continue(SearchConfig(out=tmp_path))
    assert str(caught.value).startswith(f"{file} is damaged (")
    assert "begin a search" in str(caught.value)


# Its images


def test_the_images_are_recorded(tmp_path):
    config = start_search(tmp_path, data="my images", max_epochs=9)
    found = json.loads((tmp_path / SEARCH).read_text())
    assert found["asked"] == to_dict(config)
    assert found["data"] == {
        "source": "my images",
        "class_names": ["dots", "lines"],
        "counts": {"train": 70, "validation": 10, "test": 20},
    }
    assert found["validation_images"] == 10
    assert (found["fingerprint"], found["backend"]) == ("abc", "tensorflow")
    assert found["command"] == command_of(config)
    assert {"keras_vit", "keras", "keras-tuner", "numpy"} <= found["versions"].keys()
    assert all(found["versions"].values())


def test_the_images_must_stay_the_same(tmp_path):
    config = start_search(tmp_path)
    before = (tmp_path / SEARCH).read_bytes()
    write_or_check_images(config, IMAGES)
    with pytest.raises(InputError) as caught:
        write_or_check_images(config, changed(fingerprint="abd"))
    assert str(caught.value) == (
        f"my images has changed since {tmp_path} was started: bring the images back, or start another search "
        "with another --out."
    )
    with pytest.raises(InputError) as caught:
        write_or_check_images(config, changed(backend="jax", fingerprint="abd"))
    assert str(caught.value) == (
        f"{tmp_path} was started on tensorflow, and its trials continue there: set KERAS_BACKEND=tensorflow."
    )
    assert (tmp_path / SEARCH).read_bytes() == before


def test_a_budget_below_the_default_is_refused_before_anything_is_written(tmp_path):
    out = tmp_path / "steel"
    for budget, message in (
        (
            dict(max_parameters=50_000),
            r"makes a model of 221,330 parameters, more than the 50,000 parameters",
        ),
        (
            dict(max_mult_adds=1000),
            r"mult-adds, more than the 1,000 mult-adds of the budget: raise the budget",
        ),
    ):
        with pytest.raises(InputError, match=message):
            start_search(out, **budget)
        assert tiny.tree(tmp_path) == {}
    start_search(out, max_parameters=50_000, freeze=("depth=2", "dim=32"))


# The command that repeats it


def search_fields(config):
    return {name: getattr(config, name) for name in SEARCH_FIELDS}


@pytest.mark.parametrize(
    "config",
    [
        SearchConfig(),
        FULL,
        SearchConfig(xla=True, data="it's a folder; with $(signs)"),
        *(
            SearchConfig(**{name: getattr(FULL, name)})
            for name in SEARCH_FIELDS
            if name != "space" and getattr(FULL, name) is not None
        ),
        SearchConfig(space="small", freeze=("augmentation=0",)),
    ],
    ids=case_name,
)
def test_the_command_repeats_the_search(config):
    program, subcommand, *arguments = shlex.split(command_of(config))
    assert (program, subcommand) == ("keras-vit", "search")
    found = parse(["search", *arguments]).config
    assert search_fields(found) == search_fields(config)
    assert found.folder == config.folder
    for name in set(WHERE) - {"out"}:
        assert getattr(found, name) == getattr(SearchConfig(), name)


def test_the_command_has_no_defaults():
    assert command_of(SearchConfig()) == "keras-vit search --out searches/defect28"
    assert command_of(SearchConfig(factor=2, skip_unreadable=True, freeze=("depth=2", "dim=32"))) == (
        "keras-vit search --factor 2 --freeze depth=2 dim=32 --skip-unreadable --out searches/defect28"
    )


# Its time


def test_the_time_of_all_starts_is_added(tmp_path, monkeypatch):
    assert wall_seconds(tmp_path) == 0.0
    clock = iter([110.0, 112.5, 1000.25])
    monkeypatch.setattr(folder, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    begin = add_wall_seconds(tmp_path, 100.0)
    assert (begin, wall_seconds(tmp_path)) == (110.0, 10.0)
    assert add_wall_seconds(tmp_path, begin) == 112.5
    add_wall_seconds(tmp_path, 1000.0)  # of another start, whose clock may begin at any value
    assert wall_seconds(tmp_path) == pytest.approx(12.75)


@pytest.mark.parametrize("content", ["", '"5"', "true", "-1.0", "NaN", "Infinity", "[]", "{}"])
def test_a_damaged_duration_is_refused(content, tmp_path):
    (tmp_path / "wall_seconds.json").write_text(content)
    with pytest.raises(InputError, match=r"wall_seconds\.json is (damaged|not JSON) .*"):
        wall_seconds(tmp_path)
