"""`keras-vit request`: what it prints, its exit codes, and what it does not import."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from keras_vit.cli.main import main
from keras_vit.process.exit_codes import FAILED, FINE, WRONG_USAGE
from tests.helpers.paths import ROOT
from tests.serving.brightness_model import CLASSES, expected, png
from tests.serving.protocols import both

pytestmark = [pytest.mark.same_on_every_backend, pytest.mark.usefixtures("sleeps")]


@pytest.fixture
def working_directory(tmp_path, monkeypatch):
    """The working directory, with a dark, a gray and a much too bright image."""
    for name, brightness in (("dark", 3), ("gray", 100), ("light", 255)):
        (tmp_path / f"{name}.png").write_bytes(png(brightness))
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(double, protocol, *more):
    return ["request", getattr(double, protocol), "--protocol", protocol, *more]


@both
def test_a_table(double, protocol, working_directory, capsys):
    assert main(command(double, protocol, "dark.png", "gray.png", "light.png")) == FINE
    assert capsys.readouterr().out == (
        "image      label  confidence  reject\n"
        "dark.png   dark        99.8%  no\n"
        "gray.png   gray        97.2%  no\n"
        "light.png  light       99.8%  yes\n"
    )


@both
def test_a_table_with_bad_images(double, protocol, working_directory, capsys):
    assert main(command(double, protocol, "dark.png", "nosuch.png", "text.png")) == FAILED
    shown = capsys.readouterr()
    assert shown.out == (
        "image       label  confidence  reject\n"
        "dark.png    dark        99.8%  no\n"
        "nosuch.png  -               -  -       there is no such file\n"
        "text.png    -               -  yes     the server cannot decode it as an image\n"
    )
    assert shown.err == ""


NO_SETS = {"prediction_set": None, "refer": None, "likeliest": None, "labels": None}


@both
def test_json(double, protocol, working_directory, capsys):
    assert main(command(double, protocol, "gray.png", "text.png", "--json")) == FAILED
    gray, text = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(gray.pop("probabilities"), expected(100), atol=1e-6)
    assert gray.pop("confidence") == pytest.approx(max(expected(100)), abs=1e-6)
    assert gray == {"image": "gray.png", "label": "gray", "reject": False, "error": None} | NO_SETS
    assert (
        text
        == {
            "image": "text.png",
            "label": None,
            "confidence": None,
            "reject": True,
            "probabilities": [],
            "error": "the server cannot decode it as an image",
        }
        | NO_SETS
    )


def test_json_with_the_names_of_the_classes(double, working_directory, capsys):
    assert main(command(double, "rest", "gray.png", "--json", "--labels", "labels.txt")) == FINE
    (gray,) = json.loads(capsys.readouterr().out)
    assert gray["probabilities"] == pytest.approx(dict(zip(CLASSES, expected(100), strict=True)), abs=1e-6)


@both
def test_signatures(double, protocol, capsys):
    assert main(command(double, protocol, "--signatures")) == FINE
    assert "serving_default\n  input   image_bytes  string (?)\n  output" in capsys.readouterr().out
    assert main(command(double, protocol, "--signatures", "--json")) == FINE
    found = json.loads(capsys.readouterr().out)
    assert found["images_uint8"]["inputs"] == {"images": "uint8 (?, ?, ?, ?)"}


@both
def test_options_reach_the_request(double, protocol, working_directory, sleeps, capsys):
    double.refusals = ["UNAVAILABLE"] * 3
    options = ("--version", "1", "--batch-size", "2", "--retries", "2", "--timeout", "9")
    assert main(command(double, protocol, "dark.png", "gray.png", "light.png", *options)) == FAILED
    assert double.batches == [2, 2, 2]
    assert double.requested_versions == [1, 1, 1]
    assert len(sleeps) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.endswith("): set to refuse. Tried 3 times.\n")


def test_answers_before_an_error_are_shown(double, working_directory, capsys):
    double.refusals = [None, "INTERNAL"]
    assert main(command(double, "rest", "dark.png", "gray.png", "--batch-size", "1")) == FAILED
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1:] == ["dark.png  dark        99.8%  no"]
    assert shown.err == (
        f"keras-vit: {double.rest} refuses the request (500 Internal Server Error): set to refuse.\n"
    )


MISTAKES = {
    "no port": (["localhost", "dark.png"], WRONG_USAGE, "Give the server as HOST:PORT"),
    "no image": (["localhost:8501"], WRONG_USAGE, "Give at least one image file after the server."),
    "no time": (["localhost:8501", "dark.png", "--timeout", "0"], WRONG_USAGE, "timeout must be above 0"),
    "no labels": (
        ["{rest}", "dark.png", "--json", "--labels", "nosuch.txt"],
        WRONG_USAGE,
        "nosuch.txt cannot be read (No such file or directory): give the labels.txt",
    ),
    "no labels but an image": (
        ["{rest}", "dark.png", "--json", "--labels", "dark.png"],
        WRONG_USAGE,
        "dark.png cannot be read (not UTF-8 text): give the labels.txt",
    ),
    "other labels, for a table": (
        ["{rest}", "dark.png", "--labels", "other.txt"],
        WRONG_USAGE,
        "The labels are not those of the model",
    ),
    "other labels": (
        ["{rest}", "dark.png", "--json", "--labels", "other.txt"],
        WRONG_USAGE,
        "The labels are not those of the model, which has 3 classes and calls dark.png 'dark'",
    ),
    "no such model": (
        ["{rest}", "dark.png", "--name", "steel"],
        FAILED,
        "(404 Not Found): Servable not found for request: Latest(steel). Check the name and the version",
    ),
}


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes(arguments, code, message, double, working_directory, capsys):
    (working_directory / "other.txt").write_text("a\nb\nc\n")
    assert main(["request", *(argument.format(rest=double.rest) for argument in arguments)]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("keras-vit: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1


def test_rest_needs_neither_tensorflow_nor_grpc(double, working_directory):
    script = (
        "import sys\n"
        "from keras_vit.cli.main import main\n"
        f"code = main(['request', '{double.rest}', 'dark.png'])\n"
        "print(sorted({'keras', 'tensorflow', 'grpc', 'PIL'} & set(sys.modules)))\n"
        "sys.exit(code)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert process.stderr == ""
    assert process.returncode == FINE
    assert process.stdout.splitlines()[1:] == ["dark.png  dark        99.8%  no", "[]"]
