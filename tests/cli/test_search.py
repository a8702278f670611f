"""The command `keras-vit search`: its help, and mistakes, which give one sentence and write nothing."""

import dataclasses
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from keras_vit.cli.main import main, parse
from keras_vit.cli.search import Search
from keras_vit.errors import InputError, ProcessFailed
from keras_vit.process.exit_codes import FAILED, FINE, WRONG_USAGE
from keras_vit.search.config import INTERNAL, SearchConfig
from keras_vit.search.folder import locked, write_or_check_images
from keras_vit.search.run import SearchFailed
from tests.helpers import tiny
from tests.helpers.paths import ROOT
from tests.search.running import case_name, environment

pytestmark = pytest.mark.same_on_every_backend

COMMAND = [sys.executable, "-W", "ignore", "-m", "keras_vit", "search"]
VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """The tests run in an empty folder, and the signal handler of the command is removed afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield
    signal.signal(signal.SIGTERM, before)


def code_of(arguments):
    """The exit code, whether the command returns it or the parser exits with it."""
    try:
        return main(["search", *arguments])
    except SystemExit as stop:
        return stop.code


# Help


def test_help_does_not_import_keras():
    script = (
        "import sys\n"
        "from keras_vit.cli.main import main\n"
        "try:\n"
        "    main(['search', '--help'])\n"
        "finally:\n"
        "    heavy = {'keras', 'keras_tuner', 'tensorflow', 'jax', 'torch', 'sklearn', 'matplotlib'}\n"
        "    print('imported:', sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert process.returncode == FINE
    assert process.stderr.splitlines()[-1] == "imported: []"
    assert "Examples:" in process.stdout
    for field in dataclasses.fields(SearchConfig):
        if field.name in INTERNAL:
            continue
        assert re.search(rf"--{field.name.replace('_', '-')}[ ,]", process.stdout), field.name


def test_the_examples_in_the_help_are_valid(tmp_path):
    examples = re.findall(r"^ +keras-vit (search.*)$", Search.__doc__, re.MULTILINE)
    assert len(examples) == 5
    (tmp_path / "my_space.py").write_text((ROOT / "tuning" / "my_space.py").read_text())
    for arguments in examples:
        assert isinstance(parse(arguments.split()).config, SearchConfig)


# Wrong usage


def searched(out):
    """An existing search."""
    images = SimpleNamespace(
        image_set=SimpleNamespace(source="images", class_names=("a", "b"), fixes=()),
        counts={"train": 70, "validation": 10, "test": 20},
        fingerprint="abc",
        backend="tensorflow",
        record=None,
    )
    with locked(out):
        write_or_check_images(SearchConfig(out=out, max_epochs=9), images)


def with_other_files(out):
    out.mkdir()
    (out / "photo.png").write_text("mine")


def as_file(out):
    out.write_text("mine")


WRONG_OPTIONS = [
    (["--nosuch", "1"], "--nosuch"),
    (["--max-epochs", "many"], "--max-epochs"),
    (["steel"], "steel"),
]
SENTENCES = [
    (
        [],
        "--space nothing",
        {},
        "space must be one of defect28, small, or a Python file such as my_space.py. Received: "
        "space='nothing'",
    ),
    ([], "--max-epochs 0", {}, "max_epochs must be 1 or more. Received: max_epochs=0"),
    (
        [],
        "--freeze epochs=9",
        {},
        "Hyperband sets the epochs: instead of epochs=9, use --max-epochs.",
    ),
    (
        [],
        "--freeze depth=6 width=3",
        {},
        "There is no width to freeze: the fields are depth, num_heads, dim, patch_size, mlp_ratio, stem, "
        "drop_path_rate, learning_rate, weight_decay, batch_size, augmentation, epochs.",
    ),
    ([], "--workers 0", {}, "workers=0 is a chief that waits for others: give its address with --host."),
    (
        [],
        "--host 203.0.113.1",
        {},
        "203.0.113.1 is not an address of this machine (Cannot assign requested address): change --host.",
    ),
    ([as_file], "", {}, "out cannot be made (File exists): choose another --out."),
    ([with_other_files], "", {}, "out holds other things (photo.png): choose another --out."),
    (
        [searched],
        "--no-resume",
        {},
        "out holds a search: omit --no-resume to continue it, or choose another --out.",
    ),
    (
        [searched],
        "--max-epochs 3",
        {},
        "out was started with max_epochs=9, not 3: omit --max-epochs to continue it, or start another search "
        "with another --out.",
    ),
    (
        [],
        "",
        {"KERASTUNER_TUNER_ID": "worker7"},
        "out does not hold a search to join: start the chief first, on a disk that both see.",
    ),
    (
        [searched],
        "",
        {"KERASTUNER_TUNER_ID": "worker7"},
        "KERASTUNER_TUNER_ID is set and KERASTUNER_ORACLE_IP is not: set it too, or unset "
        "KERASTUNER_TUNER_ID.",
    ),
    (
        [searched],
        "",
        {"KERASTUNER_TUNER_ID": "worker7", "KERASTUNER_ORACLE_IP": "127.0.0.1"},
        "KERASTUNER_TUNER_ID is set and KERASTUNER_ORACLE_PORT is not: set it too, or unset "
        "KERASTUNER_TUNER_ID.",
    ),
    (
        [],
        "",
        {"KERASTUNER_TUNER_ID": "chief"},
        "KERASTUNER_TUNER_ID is set and KERASTUNER_ORACLE_IP is not: set it too, or unset "
        "KERASTUNER_TUNER_ID.",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_OPTIONS, ids=case_name)
def test_wrong_options(arguments, message, tmp_path, capsys):
    assert code_of(arguments) == WRONG_USAGE
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
    assert tiny.tree(tmp_path) == {}


def test_a_search_without_kerastuner(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("keras_vit.search.run.find_spec", lambda name: None)
    assert code_of(["--out", str(tmp_path / "out")]) == WRONG_USAGE
    assert capsys.readouterr().err == (
        'keras-vit: A search needs KerasTuner: pip install "keras-vit-defects[tune]".\n'
    )
    assert tiny.tree(tmp_path) == {}


@pytest.mark.parametrize(("made", "arguments", "variables", "sentence"), SENTENCES, ids=case_name)
def test_wrong_usage_gives_one_sentence(made, arguments, variables, sentence, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    for make in made:
        make(out)
    before = tiny.tree(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert code_of([*arguments.split(), "--out", "out"]) == WRONG_USAGE
    assert capsys.readouterr() == ("", f"keras-vit: {sentence}\n")
    assert tiny.tree(tmp_path) == before


@pytest.mark.parametrize("arguments", [["--data", "nosuch"], ["--data", "empty", "--out", "new/steel"]])
def test_missing_images_leave_no_folder(arguments, tmp_path):
    (tmp_path / "empty").mkdir()
    process = subprocess.run(
        [*COMMAND, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert process.returncode == WRONG_USAGE
    assert process.stdout == ""
    (sentence,) = process.stderr.splitlines()
    assert re.match(rf"keras-vit: .*\b{arguments[1]}\b", sentence)
    assert tiny.tree(tmp_path) == {"empty": None}


def test_the_package_of_a_checkout_is_the_same_command():
    command = [
        sys.executable,
        "-m",
        "tuning",
        "--workers",
        "0",
        "--space",
        str(ROOT / "tuning" / "my_space.py"),
    ]
    process = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert process.returncode == WRONG_USAGE
    assert process.stderr == (
        "keras-vit: workers=0 is a chief that waits for others: give its address with --host.\n"
    )


# How it ends


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (None, FINE, ""),
        (InputError("No such folder."), WRONG_USAGE, "No such folder."),
        (SearchFailed("Three trials failed."), FAILED, "Three trials failed."),
        (ProcessFailed("train_run ended: see x."), FAILED, "train_run ended: see x."),
        (KeyboardInterrupt(), FAILED, "Stopped. The same command continues the search."),
        (
            OSError(28, "No space left on device", "x/oracle.json"),
            FAILED,
            "The disk is full at x/oracle.json: free some space.",
        ),
        (OSError(5, "Input/output error", "x/oracle.json"), FAILED, "x/oracle.json: Input/output error."),
    ],
    ids=case_name,
)
def test_the_exit_code_and_the_message(error, code, sentence, monkeypatch, capsys):
    def search(config):
        assert config == SearchConfig(seed=3)
        if error is not None:
            raise error

    monkeypatch.setattr("keras_vit.search.run.search", search)
    assert main(["search", "--seed", "3"]) == code
    assert capsys.readouterr() == ("", f"keras-vit: {sentence}\n" if sentence else "")


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError("a bug")])
def test_a_bug_is_a_sentence_that_names_debug(error, monkeypatch, capsys):
    def search(config):
        raise error

    monkeypatch.setattr("keras_vit.search.run.search", search)
    assert main(["search"]) == FAILED
    assert capsys.readouterr().err == (
        f"keras-vit: This was not expected: {type(error).__name__}: a bug. Run the command again with "
        "--debug for the traceback.\n"
    )
    assert main(["search", "--debug"]) == FAILED
    assert "Traceback (most recent call last):" in capsys.readouterr().err
