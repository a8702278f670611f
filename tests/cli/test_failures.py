"""The last handler: whatever fails, the command prints one sentence and gives an exit code."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from keras_vit.cli import failures
from keras_vit.cli.failures import DEBUG, debugging, exit_code_of, sentence_of
from keras_vit.cli.main import main
from keras_vit.errors import InputError, ProcessFailed, ServerError
from keras_vit.process.exit_codes import FAILED, FINE, WRONG_USAGE
from tests.helpers import tiny
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.same_on_every_backend


class PanicOfRust(BaseException):
    """Libraries in Rust raise exceptions that are no `Exception`."""


def caused(error, cause):
    error.__cause__ = cause
    return error


UNEXPECTED = "keras-vit: This was not expected: {}. Run the command again with --debug for the traceback."
DISK = "keras-vit: The disk is full{}: free some space."
LIMIT = "keras-vit: A file{} is larger than this system or this shell allows: raise the limit (ulimit -f)"
MEMORY = "keras-vit: There is not enough memory: take fewer or smaller images"

RAISED = {
    "input": (InputError("No a.png."), WRONG_USAGE, "keras-vit: No a.png."),
    "server": (ServerError("It is busy."), FAILED, "keras-vit: It is busy."),
    "process": (ProcessFailed("It ended."), FAILED, "keras-vit: It ended."),
    "Ctrl-C": (KeyboardInterrupt(), FAILED, "keras-vit: Stopped."),
    "bug": (KeyError("name"), FAILED, UNEXPECTED.format("KeyError: 'name'")),
    "several lines": (TypeError("one\ntwo"), FAILED, UNEXPECTED.format("TypeError: one")),
    "no message": (AssertionError(), FAILED, UNEXPECTED.format("AssertionError")),
    "recursion": (RecursionError("too deep"), FAILED, UNEXPECTED.format("RecursionError: too deep")),
    "Rust": (PanicOfRust("panicked"), FAILED, UNEXPECTED.format("PanicOfRust: panicked")),
    "group": (ExceptionGroup("two", [ValueError()]), FAILED, "keras-vit: This was not expected: "),
    "escapes": (ValueError("a\x1b[2J\u202e"), FAILED, UNEXPECTED.format(r"ValueError: a\x1b[2J\u202e")),
    "codec": (
        UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates"),
        FAILED,
        "keras-vit: This was not expected: UnicodeEncodeError: 'utf-8' codec",
    ),
    "disk": (OSError(errno.ENOSPC, "No space"), FAILED, DISK.format("")),
    "disk at a file": (OSError(errno.ENOSPC, "No space", "a/b"), FAILED, DISK.format(" at a/b")),
    "quota": (OSError(errno.EDQUOT, "Quota", b"a"), FAILED, DISK.format(" at a")),
    "limit of files": (OSError(errno.EFBIG, "File too large"), FAILED, LIMIT.format("")),
    "memory": (MemoryError(), FAILED, MEMORY),
    "memory of the system": (OSError(errno.ENOMEM, "Cannot allocate memory"), FAILED, MEMORY),
    "descriptors": (OSError(errno.EMFILE, "Too many"), FAILED, "keras-vit: Too many files are open: raise"),
    "disk in words": (
        RuntimeError("events.out.tfevents.1; No space left on device [Op:WriteScalarSummary]"),
        FAILED,
        DISK.format(""),
    ),
    "disk in HDF5": (OSError("(errno = 28, 'No space left on device')"), FAILED, DISK.format("")),
    "limit in HDF5": (OSError("error message = 'File too large'"), FAILED, LIMIT.format("")),
    "memory in an import": (ImportError("a.so: failed to map segment from shared object"), FAILED, MEMORY),
    "memory in TensorFlow": (RuntimeError("OOM when allocating tensor"), FAILED, MEMORY),
    "memory in torch": (RuntimeError("DefaultCPUAllocator: can't allocate memory"), FAILED, MEMORY),
    "threads": (RuntimeError("can't start new thread"), FAILED, MEMORY),
    "a cause": (caused(KeyError("a"), OSError(errno.ENOSPC, "No")), FAILED, DISK.format("")),
    "a file": (PermissionError(errno.EACCES, "Permission denied", "a\n"), FAILED, r"keras-vit: a\n: Perm"),
    "no file": (OSError(errno.EIO, "Input/output"), FAILED, "keras-vit: This was not expected: OSError: [E"),
    "a number for a file": (OSError(errno.EBADF, "B", 7), FAILED, "keras-vit: This was not expected: OSErr"),
}  # fmt: skip


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(("error", "code", "sentence"), RAISED.values(), ids=RAISED.keys())
def test_every_exception_is_one_sentence(error, code, sentence, capsys):
    assert exit_code_of(raising(error)) == code
    shown = capsys.readouterr()
    assert shown.err.startswith(sentence)
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_the_traceback_comes_with_debug_only(capsys, monkeypatch):
    monkeypatch.delenv(DEBUG, raising=False)
    with debugging(True):
        assert os.environ[DEBUG] == "1"  # for the processes that the command starts
        assert exit_code_of(raising(InputError("a\x1bb"))) == WRONG_USAGE
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == r"keras-vit: a\x1bb"
    assert DEBUG not in os.environ
    with debugging(False):
        exit_code_of(raising(InputError("a")))
    assert capsys.readouterr().err == "keras-vit: a\n"
    monkeypatch.setenv(DEBUG, "1")
    exit_code_of(raising(ValueError("a")))
    assert "Traceback" in capsys.readouterr().err


VERBS = {
    "train": ["--epochs", "0"],
    "evaluate": ["nosuch"],
    "predict": ["nosuch", "a.png"],
    "summary": ["nosuch.keras"],
    "weights": ["nosuch.pth"],
    "inspect": ["nosuch"],
    "search": ["--max-epochs", "0"],
    "export": ["nosuch", "--to", "models"],
    "request": ["nosuch", "a.png"],
    "cache": ["--nosuch"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_debug_goes_before_and_after_every_verb(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (
        [verb, *VERBS[verb]],
        ["--debug", verb, *VERBS[verb]],
        [verb, "--debug", *VERBS[verb]],
        [verb, *VERBS[verb], "--debug"],
    ):
        assert tiny.code_of(words) in (FAILED, WRONG_USAGE)
        shown = capsys.readouterr().err
        assert ("Traceback (most recent call last)" in shown) == ("--debug" in words)
        assert shown.splitlines()[-1].startswith("keras-vit: ")
    assert list(tmp_path.iterdir()) == []


def test_a_chain_of_causes_may_be_a_circle():
    error = KeyError("a")
    error.__context__ = TypeError()
    error.__context__.__context__ = error
    assert sentence_of(error).startswith("This was not expected: KeyError: 'a'.")


def test_a_thread_that_fails_is_one_line(capsys):
    def command():
        thread = threading.Thread(target=raising(ValueError("a\x1b")), name="writer")
        thread.start()
        thread.join()

    assert exit_code_of(command) == FINE
    assert capsys.readouterr().err == "keras-vit: in the thread writer: ValueError: a\\x1b\n"
    assert threading.excepthook is not None
    assert "keras_vit" not in threading.excepthook.__module__


def test_what_libraries_print_is_escaped(capsys, monkeypatch):
    def command():
        sys.stdout.write("a\x1b[31m")
        print("b\u202e", file=sys.stderr)

    with failures.shown_streams():
        command()
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("a\\x1b[31m", "b\\u202e\n")


def keras_vit(words, shell="", **options):
    command = f"{shell} exec {sys.executable} -m keras_vit {words}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        **options,
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_behind_the_output():
    ran = keras_vit("cache > /dev/full")
    assert (ran.returncode, ran.stderr) == (FAILED, "keras-vit: The disk is full: free some space.\n")


@pytest.mark.parametrize(
    ("words", "code"), [("cache >&-", FINE), ("cache 2>&-", FINE), ("cache --no 2>&-", WRONG_USAGE)]
)
def test_closed_streams(words, code):
    ran = keras_vit(words)
    assert (ran.returncode, ran.stderr) == (code, "")


def test_a_reader_that_has_ended():
    ran = keras_vit("train --help | true", "set -o pipefail;")
    assert ran.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps this limit")
def test_a_limit_of_memory():
    ran = keras_vit("inspect", "ulimit -v 800000;")
    assert ran.returncode == FAILED
    assert ran.stderr.startswith(MEMORY)
    assert ran.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps this limit")
def test_a_limit_of_memory_is_named_with_an_error_that_hides_it():
    script = "from keras_vit.cli.failures import sentence_of; print(sentence_of(AttributeError('jax')))"
    ran = subprocess.run(
        ["bash", "-c", f'ulimit -v 4000000; exec {sys.executable} -c "{script}"'],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.stdout.startswith(
        "This was not expected: AttributeError: jax. The reason may be the limit of 4.1 GB"
    )


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_a_terminal_that_cannot_show_a_name(environment):
    environment = {**os.environ, "PYTHONCOERCECLOCALE": "0", **environment}
    ran = keras_vit("train --config $'\\xe6\\x97\\xa5\\xff\\x1b[31m'", env=environment)
    assert ran.returncode == WRONG_USAGE
    name = "\\u65e5" if "PYTHONIOENCODING" in environment else "\\xe6\\x97\\xa5"
    assert ran.stderr.startswith(f"keras-vit: There is no file {name}\\xff\\x1b[31m: give the ")
    help_of = keras_vit("--help", env=environment)
    assert (help_of.returncode, help_of.stderr) == (FINE, "")


def test_the_versions_are_printed_without_importing_keras(capsys, monkeypatch, tmp_path):
    from keras_vit.version import __version__

    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for words in (["--version"], ["-V"], ["--debug", "--version"]):
        assert main(words) == FINE
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"keras-vit {__version__}"
        assert {line.split()[0] for line in lines} >= {"keras", "tensorflow", "Python"}
        assert lines[-1] == "backend jax"
    script = (
        "import sys; from keras_vit.cli.main import main; main(['--version']); print('keras' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [('{"backend": "torch"}', "torch"), (None, "tensorflow"), ("[]", "tensorflow"), ("{", "tensorflow")],
)
def test_the_backend_of_the_versions_is_the_one_keras_takes(content, wanted, tmp_path, monkeypatch):
    from keras_vit.cli.versions import backend

    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    if content is not None:
        (tmp_path / "keras.json").write_text(content)
    assert backend() == wanted
