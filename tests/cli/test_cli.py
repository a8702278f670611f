"""The command: its help, and the output of each subcommand."""

import json
import os
import re
import subprocess
import sys

import pytest

from keras_vit.cli.main import main, parse
from keras_vit.model.cost import count_parameters
from keras_vit.process.exit_codes import FAILED, FINE, INCOMPLETE, WRONG_USAGE
from keras_vit.runs.folder import load_run
from keras_vit.training.config import TrainConfig
from keras_vit.training.options import PARTS
from keras_vit.training.recipe import RECIPES
from tests.helpers import tiny

COMMANDS = (
    "train",
    "evaluate",
    "predict",
    "explain",
    "summary",
    "weights",
    "audit",
    "inspect",
    "search",
    "export",
    "request",
)


pytestmark = pytest.mark.usefixtures("tiny_size")


@pytest.fixture(scope="module")
def run(trained):
    return trained[0]


# Help and usage


# The shell of most users does not set this variable. Those who set it see the log lines of TensorFlow.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
COMMAND = [sys.executable, "-m", "keras_vit"]


@pytest.mark.same_on_every_backend
def test_help_does_not_import_keras():
    script = (
        "import sys\n"
        "from keras_vit.cli.main import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    heavy = {'keras', 'tensorflow', 'jax', 'torch', 'sklearn', 'matplotlib'}\n"
        "    print('imported:', sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert process.returncode == FINE
    assert process.stderr.splitlines()[-1] == "imported: []"
    assert all(name in process.stdout for name in COMMANDS)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_subcommand_shows_examples(name, capsys):
    assert tiny.code_of([name, "--help"]) == FINE
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    assert f"keras-vit {name}" in shown


@pytest.mark.same_on_every_backend
def test_help_of_train_has_an_option_for_each_setting(capsys):
    tiny.code_of(["train", "--help"])
    shown = capsys.readouterr().out
    for name in ("config", "recipe", *(name for names in PARTS.values() for name in names)):
        assert re.search(rf"--{name.replace('_', '-')}[ ,]", shown), name
    text = " ".join(shown.replace("│", "").split())
    assert "images per step (default: 32; 64 with --recipe lab)" in text
    assert "encoder blocks (default: that of the size)" in text
    assert "of the split, the first weights, the order and the augmentation (default: 0)" in text


@pytest.mark.long
@pytest.mark.same_on_every_backend
def test_the_module_runs_as_a_command():
    process = subprocess.run(
        [*COMMAND, "evaluate", "nosuch"], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == WRONG_USAGE
    assert process.stdout == ""
    assert process.stderr == (
        "keras-vit: There is no run folder nosuch: give the folder that `keras-vit train` made.\n"
    )


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "Expected one of {train, evaluate, predict, explain, summary, weights, audit, inspect, compare, "
            "suggest, search, export, request, serve, cache}. See keras-vit --help.",
        ),
        (
            ["nosuch"],
            "Unrecognized options: nosuch. The commands are: train, evaluate, predict, explain, summary, "
            "weights, audit, inspect, compare, suggest, search, export, request, serve, cache. See keras-vit "
            "--help.",
        ),
        (["train", "--nosuch", "1"], "Unrecognized options: --nosuch, 1. See keras-vit --help."),
        (
            ["train", "--dept", "3"],
            "Unrecognized options: --dept, 3. Perhaps you meant --depth. See keras-vit --help.",
        ),
        (
            ["evaluate", "run", "--epochs", "3"],
            "--epochs is not an option of keras-vit evaluate. See keras-vit --help.",
        ),
        (
            ["train", "--epochs", "many"],
            "--epochs must be a whole number. Received: 'many'. See keras-vit --help.",
        ),
        (
            ["train", "--learning-rate", "high"],
            "--learning-rate must be a number. Received: 'high'. See keras-vit --help.",
        ),
        (
            ["train", "--image-size", "28", "x"],
            "--image-size must be None, or INT, or INT INT, or auto. Received: '28', 'x'. "
            "See keras-vit --help.",
        ),
        (
            ["train", "--recipe", "nosuch"],
            "--recipe must be one of 'default', 'drawn', 'finetune', 'lab', 'lora', 'probe', 'robust'. "
            "Received: 'nosuch'. See keras-vit train --help.",
        ),
        (
            ["train", "--channels", "33"],
            "channels must be 1 or more and 32 at most. Received: channels=33",
        ),
        (
            ["train", "--depth"],
            "Missing value for argument '--depth'. Expected 1 values. See keras-vit train --help.",
        ),
        (
            ["evaluate"],
            "Missing from keras-vit evaluate: PATH a run folder (required). See keras-vit evaluate --help.",
        ),
        (["evaluate", "a" * 200, "b" * 200], f"Unrecognized options: {'b' * 200}. See keras-vit --help."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_usage_is_one_sentence_and_exits_with_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tiny.code_of(arguments) == WRONG_USAGE
    shown = capsys.readouterr()
    assert shown.err == f"keras-vit: {message}\n"
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.same_on_every_backend
def test_every_argument_of_a_vit_is_an_option():
    arguments = "train --model S/16 --pooling gap --num-registers 4 --layer-scale 1e-5 --remat --no-qkv-bias"
    changes = dict(pooling="gap", num_registers=4, layer_scale=1e-5, remat=True, qkv_bias=False)
    assert parse(arguments.split()).run == TrainConfig(model="S/16", changes=changes)
    assert parse(["train", "--model", "defect/4", "--head-dim", "None"]).run.changes == {"head_dim": None}


@pytest.mark.same_on_every_backend
def test_only_given_options_change_the_settings():
    train = parse(["train", "--seed", "0", "--clip-norm", "None", "--no-transpose"])
    given = (train.basic, train.architecture, train.training, train.augmentation)
    assert given == ({"seed": 0}, {}, {"clip_norm": None}, {"transpose": False})


@pytest.mark.same_on_every_backend
def test_the_recipe_sets_the_defaults_and_options_change_them():
    lab = parse(["train", "--recipe", "lab", "--epochs", "3"]).run.recipe
    assert (lab.optimizer, lab.learning_rate, lab.batch_size, lab.epochs) == ("adam", 3e-4, 64, 3)
    assert parse(["train", "--recipe=lab"]).run.recipe == RECIPES["lab"]
    assert parse(["train", "--recipe", "lab", "--recipe", "default"]).run.recipe == RECIPES["default"]
    assert parse(["train"]).run.recipe == RECIPES["default"]


# The output of each subcommand


def test_train_shows_its_epochs_and_ends_with_the_path_of_the_report(trained):
    out, printed = trained
    assert "Epoch 2/2" in printed
    *_, accuracy, sets, last = printed.splitlines()
    assert last == f"report: {out / 'report.html'}"
    assert "95 % interval" in accuracy
    assert sets == "no prediction sets: sets of 95 % take 19 calibration images, there are 3"


def test_evaluate(run, capsys):
    expected = load_run(run).metrics["best"]
    assert main(["evaluate", str(run)]) == FINE
    shown = capsys.readouterr().out
    assert f"accuracy {expected['accuracy']:.1%} ({expected['correct']} of 6;" in shown
    assert all(name in shown for name in tiny.CLASSES)
    assert main(["evaluate", str(run), "--json"]) == FINE
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == pytest.approx(expected["accuracy"])


def test_evaluate_from_inside_the_run_folder(run, capsys, monkeypatch):
    monkeypatch.chdir(run)
    assert main(["evaluate", ".", "--json"]) == FINE
    assert json.loads(capsys.readouterr().out)["images"] == 6


def test_evaluate_other_images(run, images, capsys):
    assert main(["evaluate", str(run), "--data", str(images), "--json"]) == FINE
    assert json.loads(capsys.readouterr().out)["images"] == 36


def test_evaluate_images_of_some_of_the_classes(run, tmp_path, capsys):
    some = tiny.draw(tmp_path / "some", classes=("plain", "dots"), each=4)
    assert main(["evaluate", str(run), "--data", str(some), "--json"]) == FINE
    rows = {row["name"]: row["support"] for row in json.loads(capsys.readouterr().out)["per_class"]}
    assert rows == {"dots": 4, "lines": 0, "plain": 4}


def test_predict(run, images, capsys):
    files = [str(images / "dots" / "0.png"), str(images / "lines" / "0.png")]
    assert main(["predict", str(run), *files, "--json"]) == FINE
    answer = json.loads(capsys.readouterr().out)
    assert [item["image"] for item in answer] == files
    for item in answer:
        assert item["label"] == max(item["probabilities"], key=item["probabilities"].get)
        assert sum(item["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert main(["predict", str(run), *files]) == FINE
    assert capsys.readouterr().out.splitlines() == [
        f"{item['image']:{max(map(len, files))}}  {item['label']}  {item['confidence']:.1%}"
        for item in answer
    ]


def test_predict_of_good_and_bad_images(run, images, tmp_path, capsys):
    good = str(images / "plain" / "3.png")
    (tmp_path / "text.jpg").write_text("no image")
    bad = [str(tmp_path / "nosuch.png"), str(tmp_path / "text.jpg")]
    assert main(["predict", str(run), bad[0], good, bad[1], "--json"]) == INCOMPLETE
    first, middle, last = json.loads(capsys.readouterr().out)
    assert (first["image"], first["label"]) == (bad[0], None)
    assert first["error"] == "cannot be opened (No such file or directory)"
    assert middle["error"] is None
    assert middle["label"] in tiny.CLASSES
    assert last["error"].startswith("not a readable JPEG, PNG, BMP, GIF, WebP, TIFF, DICOM or AVIF image")
    assert main(["predict", str(run), good, "--json"]) == FINE
    alone = json.loads(capsys.readouterr().out)[0]
    assert alone["probabilities"] == pytest.approx(middle["probabilities"], abs=1e-5)


def test_predict_only_bad_images(run, tmp_path, capsys):
    assert main(["predict", str(run), str(tmp_path / "nosuch.png")]) == INCOMPLETE
    assert "cannot be opened" in capsys.readouterr().out


def test_summary_of_a_size(capsys):
    arguments = ["defect/4", "--image-shape", "28", "28", "1", "--num-classes", "6", "--batch-size", "64"]
    assert main(["summary", *arguments]) == FINE
    shown = capsys.readouterr().out
    assert "508,166" in shown
    assert "178.65 MB" in shown
    assert main(["summary", *arguments, "--json"]) == FINE
    assert "508166" in capsys.readouterr().out


def test_summary_of_a_changed_size(capsys):
    changes = ("--pooling", "gap", "--num-registers", "2", "--head-dim", "None", "--depth", "2")
    assert main(["summary", "defect-conv/4", *changes, "--json"]) == FINE
    config = TrainConfig(
        model="defect-conv/4", changes=dict(pooling="gap", num_registers=2, head_dim=None, depth=2)
    )
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["parameters"] == count_parameters(config.vit_config(1000))


def test_summary_of_a_run_takes_no_changes(run, capsys):
    assert main(["summary", str(run), "--pooling", "gap"]) == WRONG_USAGE
    assert "Only a size can be changed" in capsys.readouterr().err


def test_summary_of_a_run_and_of_its_model(run, capsys):
    assert main(["summary", str(run), "--json"]) == FINE
    of_run = json.loads(capsys.readouterr().out)
    assert main(["summary", str(run / "model.keras"), "--json"]) == FINE
    assert json.loads(capsys.readouterr().out) == of_run


@pytest.mark.same_on_every_backend
def test_inspect(images, tmp_path, capsys):
    assert main(["inspect", str(images)]) == FINE
    assert "36 images, 3 classes" in capsys.readouterr().out
    assert main(["inspect", str(images), "--json"]) == FINE
    assert json.loads(capsys.readouterr().out)["images"] == 36


@pytest.mark.same_on_every_backend
def test_inspect_names_unreadable_images_and_fails(tmp_path, capsys):
    folder = tiny.draw(tmp_path / "images", each=4)
    (folder / "dots" / "9.jpg").write_text("no image")
    assert main(["inspect", str(folder), "--json"]) == FAILED
    assert [item["name"] for item in json.loads(capsys.readouterr().out)["unreadable"]] == ["dots/9.jpg"]


def test_train_skips_unreadable_images_and_prints_json_only(tmp_path, capsys):
    folder = tiny.draw(tmp_path / "images")
    (folder / "dots" / "broken.jpg").write_bytes(b"")
    arguments = tiny.command(folder, tmp_path / "run", "--skip-unreadable", "--json", epochs=1)
    assert main(arguments) == FINE
    answer = json.loads(capsys.readouterr().out)
    run = load_run(answer["run"])
    assert answer["report"] == str(run.path / "report.html")
    for weights in ("best", "last"):
        assert answer[weights]["accuracy"] == run.metrics[weights]["accuracy"]
        assert len(answer[weights]["accuracy_interval"]) == 2
    assert sum(run.config["data"]["counts"].values()) == 36
    assert main(["evaluate", answer["run"]]) == FINE


@pytest.mark.long
@pytest.mark.same_on_every_backend
def test_a_closed_pipe_gives_no_traceback(images):
    """`keras-vit inspect images | head -0`"""
    process = subprocess.Popen(
        [*COMMAND, "inspect", str(images)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    shown = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) == FAILED
    assert shown == ""
