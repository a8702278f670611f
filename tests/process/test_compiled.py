"""The kept programs of the compilers: what they cost if they are damaged, foreign or shared. Nothing."""

import fcntl
import os
import subprocess
import sys
from hashlib import sha256

import pytest

from keras_vit.cache import FOLDER, SIZE, cached_files, clear_cache, compiled_files
from keras_vit.files import work_name
from keras_vit.process import compiled

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture
def ended(monkeypatch, tmp_path):
    """Starts commands of TensorFlow in this process; calling what they registered ends them."""
    registered = []
    monkeypatch.setenv(FOLDER, str(tmp_path / "kept"))
    monkeypatch.delenv(SIZE, raising=False)
    monkeypatch.setattr(compiled, "backend", lambda: "tensorflow")
    monkeypatch.setattr(compiled, "GPU_FILES", ())
    monkeypatch.setattr(compiled, "is_imported", lambda name: False)
    monkeypatch.setattr(
        compiled.atexit, "register", lambda function, *given: registered.append((function, given))
    )
    for name in compiled.VARIABLES:
        monkeypatch.setenv(name, "")
    yield registered
    for function, given in registered:
        function(*given)


def begin(monkeypatch):
    """The folder of a command, or `None`."""
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    compiled.keep_compilations()
    flags = os.environ["TF_XLA_FLAGS"]
    return flags.partition("=")[2] or None


def end(ended):
    function, given = ended.pop(0)
    function(*given)


def kept(tmp_path):
    return compiled_files(tmp_path / "kept" / "compiled")


def test_a_later_command_finds_what_an_earlier_one_made(ended, monkeypatch, tmp_path):
    first, beside = begin(monkeypatch), begin(monkeypatch)
    for folder, name in ((first, "a.pb"), (first, "b.pb"), (beside, "a.pb")):
        with open(os.path.join(folder, name), "w") as file:
            file.write("program")
    end(ended)
    end(ended)
    assert not os.path.exists(first)
    assert not os.path.exists(beside)
    digest = sha256(b"program").hexdigest()
    assert {path.name for path in kept(tmp_path)} == {f"a.pb.{digest}", f"b.pb.{digest}"}
    assert sorted(os.listdir(begin(monkeypatch))) == ["a.pb", "b.pb"]
    assert set(cached_files(tmp_path / "kept")) == set(kept(tmp_path))
    assert clear_cache() == (2, 14)
    assert not kept(tmp_path)


COMPILE = {
    "tensorflow": "import tensorflow as tf; f = tf.function(jit_compile=True)",
    "jax": "import jax; f = jax.jit",
}


@pytest.mark.parametrize("name", COMPILE)
def test_the_backend_finds_its_own_programs(name, tmp_path):
    """In a later command, whose folder has another name."""
    pytest.importorskip(name)
    code = f"from keras_vit.process import compiled\ncompiled.keep_compilations()\n{COMPILE[name]}"
    code += "\nprint(float(f(lambda x: 3 * x + 1)(2.0)))"
    inherited = {k: v for k, v in os.environ.items() if k not in compiled.VARIABLES}
    environment = {**inherited, "KERAS_BACKEND": name, FOLDER: str(tmp_path / "kept")}
    found = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout == "7.0\n", done.stderr
        found.append(kept(tmp_path))
    if name == "tensorflow" and any(map(os.path.exists, compiled.GPU_FILES)):
        pytest.skip("TensorFlow's programs are not kept where there is a GPU")
    assert found[0]
    assert found[0] == found[1]


def test_damaged_and_foreign_files_are_not_used(ended, monkeypatch, tmp_path):
    with open(os.path.join(begin(monkeypatch), "a.pb"), "w") as file:
        file.write("program")
    end(ended)
    [path] = kept(tmp_path)
    path.write_text("progra")
    path.with_name("notes.txt").write_text("mine")
    assert os.listdir(begin(monkeypatch)) == []
    assert [found.name for found in path.parent.iterdir()] == ["notes.txt"]


def test_another_machine_has_programs_of_its_own(ended, monkeypatch, tmp_path):
    with open(os.path.join(begin(monkeypatch), "a.pb"), "w") as file:
        file.write("program")
    end(ended)
    before = compiled.machine("tensorflow")
    monkeypatch.setattr(compiled, "installed_versions", lambda *names: {"tensorflow": "9"})
    assert compiled.machine("tensorflow") != before
    assert os.listdir(begin(monkeypatch)) == []


def test_only_the_folder_of_a_killed_command_is_removed(ended, monkeypatch, tmp_path):
    living = begin(monkeypatch)
    dead = tmp_path / "kept" / "compiled" / work_name("0" * 16)
    dead.mkdir()
    begin(monkeypatch)
    assert os.path.isdir(living)
    assert not dead.exists()
    opened = os.open(living, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(opened)


def test_the_oldest_go_first(ended, monkeypatch, tmp_path):
    monkeypatch.setattr(compiled, "MOST_BYTES", 10)
    for name in "ab":
        with open(os.path.join(begin(monkeypatch), f"{name}.pb"), "w") as file:
            file.write("program")
        end(ended)
        for path in kept(tmp_path):
            os.utime(path, (1, 1) if name == "a" else None)
    assert [path.name[0] for path in kept(tmp_path)] == ["b"]


@pytest.mark.parametrize(
    "where", ["no cache", "a wrong size", "the user's own", "a file in the way", "a full disk", "spaces"]
)
def test_without_a_cache_the_command_runs(where, ended, monkeypatch, tmp_path):
    if where == "no cache":
        monkeypatch.setenv(SIZE, "0")
    elif where == "a wrong size":
        monkeypatch.setenv(SIZE, "a lot")
    elif where == "the user's own":
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    elif where == "a file in the way":
        (tmp_path / "kept").write_text("")
    elif where == "a full disk":
        monkeypatch.setattr(compiled, "LEAST_FREE", 2**80)
    else:
        monkeypatch.setenv(FOLDER, str(tmp_path / "my cache"))
    assert begin(monkeypatch) is None
