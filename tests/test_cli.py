"""The command: what each verb answers, and what a mistake gets: a sentence, an exit code, nothing on disk."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tiny
from PIL import Image

from keras_vit import ViT
from keras_vit.cli import FAILED, FINE, WRONG_USAGE, main, parse
from keras_vit.data.augmentation import Augmentation
from keras_vit.run_folder import load_run
from keras_vit.training.architecture import Architecture
from keras_vit.training.config import TrainConfig
from keras_vit.training.recipe import RECIPES, Recipe

MADE_OF = (TrainConfig, Architecture, Recipe, Augmentation)
VERBS = ("train", "evaluate", "predict", "summary", "inspect", "export", "request")


pytestmark = pytest.mark.usefixtures("tiny_size")


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """The folder of a finished run, and what the command printed."""
    out, said = tmp_path_factory.mktemp("runs") / "first", io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(tiny.words(images, out, epochs=2)) == FINE
    return out, said.getvalue()


@pytest.fixture(scope="module")
def run(trained):
    return trained[0]


def copy_of(run, folder):
    return shutil.copytree(run, folder / "copy")


def code_of(words):
    """The exit code, whether the command returns it or argparse exits with it."""
    try:
        return main([str(word) for word in words])
    except SystemExit as stop:
        return stop.code


# Help and usage


# As a person's shell has it: who sets this variable wants to see the lines of TensorFlow.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
COMMAND = [sys.executable, "-m", "keras_vit"]


def test_help_answers_without_keras():
    script = (
        "import sys\n"
        "from keras_vit.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    heavy = {'keras', 'tensorflow', 'jax', 'torch', 'sklearn', 'matplotlib'}\n"
        "    print('imported:', sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert process.returncode == FINE
    assert process.stderr.splitlines()[-1] == "imported: []"
    assert all(verb in process.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_examples(verb, capsys):
    assert code_of([verb, "--help"]) == FINE
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    assert f"keras-vit {verb}" in shown


def test_help_of_train_has_an_option_for_each_field_of_the_recipe(capsys):
    code_of(["train", "--help"])
    shown = capsys.readouterr().out
    fields = {field.name for made in MADE_OF for field in dataclasses.fields(made)}
    for name in {*fields, "config"} - {"augmentation", "changes", "recipe"}:
        assert re.search(rf"--{name.replace('_', '-')}[ ,]", shown), name


def test_the_module_runs_as_a_command():
    process = subprocess.run(
        [*COMMAND, "evaluate", "nosuch"], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == WRONG_USAGE
    assert process.stdout == ""
    assert process.stderr == (
        "keras-vit: There is no run folder nosuch: give the folder that `keras-vit train` made.\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing subcommand"),
        (["nosuch"], "nosuch"),
        (["train", "--nosuch", "1"], "--nosuch"),
        (["train", "--epochs", "many"], "--epochs"),
        (["train", "--recipe", "nosuch"], "nosuch"),
        (["train", "--channels", "2"], "--channels"),
        (["evaluate"], "Missing from keras-vit evaluate"),
    ],
)
def test_wrong_usage_exits_with_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert code_of(words) == WRONG_USAGE
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_sets_the_defaults_and_options_change_them():
    lab = parse(["train", "--recipe", "lab", "--epochs", "3"]).run.recipe
    assert (lab.optimizer, lab.learning_rate, lab.batch_size, lab.epochs) == ("adam", 3e-4, 64, 3)
    assert parse(["train", "--recipe=lab"]).run.recipe == RECIPES["lab"]
    assert parse(["train", "--recipe", "lab", "--recipe", "default"]).run.recipe == RECIPES["default"]
    assert parse(["train"]).run.recipe == RECIPES["default"]


# What each verb answers


def test_train_shows_its_epochs_and_ends_with_the_path_of_the_report(trained):
    out, said = trained
    assert "Epoch 2/2" in said
    *_, last_but_one, last = said.splitlines()
    assert last == f"report: {out / 'report.html'}"
    assert "95 % interval" in last_but_one


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


def test_predict_answers_the_good_images_beside_the_bad(run, images, tmp_path, capsys):
    good = str(images / "plain" / "3.png")
    (tmp_path / "text.jpg").write_text("no image")
    bad = [str(tmp_path / "nosuch.png"), str(tmp_path / "text.jpg")]
    assert main(["predict", str(run), bad[0], good, bad[1], "--json"]) == FAILED
    first, middle, last = json.loads(capsys.readouterr().out)
    assert (first["image"], first["label"]) == (bad[0], None)
    assert first["error"] == "cannot be opened (No such file or directory)"
    assert middle["error"] is None
    assert middle["label"] in tiny.CLASSES
    assert last["error"].startswith("no readable JPEG, PNG, BMP, GIF or WebP image")
    assert main(["predict", str(run), good, "--json"]) == FINE
    alone = json.loads(capsys.readouterr().out)[0]
    assert alone["probabilities"] == pytest.approx(middle["probabilities"], abs=1e-5)


def test_predict_only_bad_images(run, tmp_path, capsys):
    assert main(["predict", str(run), str(tmp_path / "nosuch.png")]) == FAILED
    assert "cannot be opened" in capsys.readouterr().out


def test_summary_of_a_size(capsys):
    words = ["defect/4", "--image-shape", "28", "28", "1", "--num-classes", "6", "--batch-size", "64"]
    assert main(["summary", *words]) == FINE
    shown = capsys.readouterr().out
    assert "508,166" in shown
    assert "178.65 MB" in shown
    assert main(["summary", *words, "--json"]) == FINE
    assert "508166" in capsys.readouterr().out


def test_summary_of_a_run_and_of_its_model(run, capsys):
    assert main(["summary", str(run), "--json"]) == FINE
    of_run = json.loads(capsys.readouterr().out)
    assert main(["summary", str(run / "model.keras"), "--json"]) == FINE
    assert json.loads(capsys.readouterr().out) == of_run


def test_inspect(images, tmp_path, capsys):
    assert main(["inspect", str(images)]) == FINE
    assert "36 images, 3 classes" in capsys.readouterr().out
    assert main(["inspect", str(images), "--json"]) == FINE
    assert json.loads(capsys.readouterr().out)["images"] == 36


def test_inspect_names_the_unreadable_and_fails(tmp_path, capsys):
    folder = tiny.draw(tmp_path / "images", each=4)
    (folder / "dots" / "9.jpg").write_text("no image")
    assert main(["inspect", str(folder), "--json"]) == FAILED
    assert [item["name"] for item in json.loads(capsys.readouterr().out)["unreadable"]] == ["dots/9.jpg"]


def test_train_skips_the_unreadable_and_answers_in_json_alone(tmp_path, capsys):
    folder = tiny.draw(tmp_path / "images")
    (folder / "dots" / "broken.jpg").write_bytes(b"")
    words = tiny.words(folder, tmp_path / "run", "--skip-unreadable", "--json", epochs=1)
    assert main(words) == FINE
    answer = json.loads(capsys.readouterr().out)
    run = load_run(answer["run"])
    assert answer["report"] == str(run.path / "report.html")
    for which in ("best", "last"):
        assert answer[which]["accuracy"] == run.metrics[which]["accuracy"]
        assert len(answer[which]["accuracy_interval"]) == 2
    assert sum(run.config["data"]["counts"].values()) == 36
    assert main(["evaluate", answer["run"]]) == FINE


# Bad images: none gets as far as a run folder


def encoded(kind, size=(64, 64)):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def no_folder(folder):
    return folder / "nosuch"


def empty_folder(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def one_class(folder):
    return tiny.draw(folder / "one", classes=("dots",))


def one_image(folder):
    tiny.draw(folder / "few", classes=("dots", "plain"))
    Image.new("L", (32, 32)).save(tiny.draw(folder / "few", classes=("rare",), each=0) / "rare" / "1.png")
    return folder / "few"


def with_file(name, content):
    def make(folder):
        drawn = tiny.draw(folder / "images", each=4)
        (drawn / "dots" / name).write_bytes(content)
        return drawn

    return make


def huge_image(folder):
    drawn = tiny.draw(folder / "images", each=4)
    Image.new("1", (20_000, 20_000)).save(drawn / "dots" / "huge.png")
    return drawn


def zip_with(names, content=None, compression=zipfile.ZIP_STORED):
    def make(folder):
        with zipfile.ZipFile(folder / "images.zip", "w", compression) as packed:
            for name in names:
                packed.writestr(name, encoded("PNG") if content is None else content)
        return folder / "images.zip"

    return make


def text_as(name):
    def make(folder):
        (folder / name).write_text("neither an archive nor arrays")
        return folder / name

    return make


BAD_IMAGES = {
    "no such folder": (no_folder, "No such file or folder: {data}. Check the path"),
    "empty folder": (empty_folder, "{data} holds no image"),
    "one class": (one_class, '{data} holds one class only, "dots". A classifier needs two or more'),
    "a class with 1 image": (one_image, 'Class "rare" has 1 image in {data}; it needs at least 3'),
    "text named .jpg": (with_file("a.jpg", b"hello"), "dots/a.jpg: no readable JPEG, PNG"),
    "a truncated JPEG": (
        with_file("a.jpg", encoded("JPEG")[:-900]),
        "dots/a.jpg: cannot be decoded: cut short or damaged",
    ),
    "0 bytes": (with_file("a.png", b""), "dots/a.png: empty, 0 bytes"),
    "20,000 x 20,000": (huge_image, "dots/huge.png: 20000 x 20000 pixels is more than the 100 million"),
    "a zip with ../": (
        zip_with(["a/1.png", "../../evil/1.png"]),
        "{data} holds ../../evil/1.png, a name that leads out of the zip",
    ),
    "a zip bomb": (
        zip_with(["a/1.png", "b/1.png"], bytes(64 * 1024**2), zipfile.ZIP_DEFLATED),
        "it may be a zip bomb",
    ),
    "no zip": (text_as("images.zip"), "{data} is no zip file"),
    "no npz": (text_as("images.npz"), "{data}"),
    "a text file": (text_as("images.txt"), "{data} is no folder, no .zip and no .npz file"),
    "one image": (
        lambda folder: tiny.draw(folder / "images") / "dots" / "0.png",
        "{data} is one image. Give the folder that holds the folders of the classes",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_bad_images_stop_the_training_before_it_begins(make, message, tmp_path, capsys):
    data = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert code_of(tiny.words(data, tmp_path / "runs" / "run")) == WRONG_USAGE
    shown = capsys.readouterr()
    assert shown.err.startswith("keras-vit: ")
    assert message.format(data=data) in shown.err
    assert "Traceback" not in shown.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["no such folder", "empty folder", "one class", "a zip with ../"])
def test_inspect_and_evaluate_refuse_them_too(name, run, tmp_path, capsys):
    make, message = BAD_IMAGES[name]
    data = make(tmp_path)
    for words in (["inspect", str(data)], ["evaluate", str(run), "--data", str(data)]):
        assert main(words) == WRONG_USAGE
        assert message.format(data=data) in capsys.readouterr().err


# Bad options of train


BAD_OPTIONS = {
    "image size": (
        ("--image-size", "30"),
        "patch_size must divide the height and the width of the image. Received: patch_size=4, image 30x30",
    ),
    "image size 0": (("--image-size", "0"), "image_size must be 1 or more. Received: image_size=0"),
    "unknown model": (("--model", "nosuch/4"), "sizes are Ti, S, B"),
    "learning rate 0": (("--learning-rate", "0"), "learning_rate must be above 0.0"),
    "learning rate nan": (("--learning-rate", "nan"), "Received: learning_rate=nan"),
    "epochs 0": (("--epochs", "0"), "epochs must be 1 or more. Received: epochs=0"),
    "too large a batch": (("--batch-size", "28"), "batch_size 28 is more than the 27 training images"),
    "transpose": (
        ("--image-size", "32", "16", "--transpose"),
        "transpose needs square images, these are 32x16: use --no-transpose",
    ),
    "test fraction": (("--test-fraction", "0"), "test_fraction must be above 0"),
    "seed": (("--seed", "-1"), "seed must be 0 or more"),
    "depth 0": (("--depth", "0"), "depth must be 1 or more. Received: depth=0"),
    "heads": (("--num-heads", "3"), "num_heads must divide dim. Received: num_heads=3, dim=8"),
    "stem and patch": (("--model", "S/14", "--stem", "conv"), "or the linear stem. Received: S/14"),
    "no settings": (("--config", "nosuch.json"), "There is no file nosuch.json: give the best.json of a"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options(options, message, images, tmp_path, capsys):
    assert code_of(tiny.words(images, tmp_path / "runs" / "run", *options)) == WRONG_USAGE
    shown = capsys.readouterr().err
    assert shown.startswith("keras-vit: ")
    assert message in shown
    assert "Traceback" not in shown
    assert "tyro" not in shown
    assert list(tmp_path.iterdir()) == []


def test_resume_without_out(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert code_of(["train", "--resume"]) == WRONG_USAGE
    assert capsys.readouterr().err == "keras-vit: Say which run to resume: give its folder with --out.\n"
    assert list(tmp_path.iterdir()) == []


def test_out_that_exists_is_left_alone(run, images, capsys):
    before = tiny.tree(run)
    assert main(tiny.words(images, run)) == WRONG_USAGE
    assert f"{run} is there already: choose another --out, or remove it" in capsys.readouterr().err
    assert tiny.tree(run) == before


def test_out_that_is_here(images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(tiny.words(images, ".")) == WRONG_USAGE
    assert "is there already" in capsys.readouterr().err


def test_out_below_a_file(images, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(tiny.words(images, tmp_path / "file" / "run")) in (FAILED, WRONG_USAGE)
    shown = capsys.readouterr().err
    assert "Not a directory" in shown
    assert str(tmp_path / "file") in shown
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_out_in_a_folder_that_cannot_be_written(images, tmp_path, capsys):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert main(tiny.words(images, locked / "run")) == WRONG_USAGE
    assert "cannot be made (Permission denied): choose another --out" in capsys.readouterr().err
    assert list(locked.iterdir()) == []


@pytest.mark.parametrize("heads", [3, 0])
def test_heads_that_do_not_divide_the_width(heads):
    with pytest.raises(ValueError, match="num_heads"):
        ViT(image_shape=(28, 28, 1), num_classes=3, patch_size=4, dim=64, depth=1, num_heads=heads)


# Bad run folders


def lambda_model(folder):
    """A model.keras that would run code of its author's choice."""
    trap = str(folder.parent / "was_run")
    # A true lambda: its bytecode is in the file, and only the safe mode keeps it from running.
    spring = keras.layers.Lambda(lambda x: (open(trap, "w").close(), x)[1])
    inputs = keras.Input((28, 28, 1))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(spring(inputs)))
    keras.Model(inputs, outputs).save(folder / "model.keras")
    os.unlink(trap)  # sprung when the model was made


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def cut_model(folder):
    path = folder / "model.keras"
    path.write_bytes(path.read_bytes()[:-500])


BAD_RUNS = {
    "no model": (remove("model.keras"), "{run} is no run folder, it has no model.keras: give one that"),
    "no metrics": (remove("metrics.json"), "{run} is no run folder, it has no metrics.json"),
    "a Lambda layer": (
        lambda_model,
        "model.keras holds code (a Lambda layer), which is not run: save the model without Lambda layers",
    ),
    "a model cut short": (cut_model, "model.keras cannot be read as a Keras model"),
    "a text for a model": (write("model.keras", "hello"), "model.keras cannot be read as a Keras model"),
    "a damaged config": (write("config.json", '{"model": '), "config.json cannot be read"),
    "another config": (write("config.json", "{}"), "has a damaged config.json or metrics.json (no 'data')"),
    "a list for a config": (write("config.json", "[]"), "has a damaged config.json or metrics.json"),
    "damaged metrics": (write("metrics.json", ""), "metrics.json cannot be read"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_RUNS.values(), ids=BAD_RUNS.keys())
def test_bad_run_folders(spoil, message, run, images, tmp_path, capsys):
    folder = copy_of(run, tmp_path)
    spoil(folder)
    before = tiny.tree(tmp_path)
    verbs = [["evaluate", folder], ["predict", folder, images / "dots" / "0.png"], ["summary", folder]]
    for words in verbs:
        assert code_of(words) == WRONG_USAGE
        shown = capsys.readouterr()
        assert shown.out == ""
        assert message.format(run=folder) in shown.err
        assert "Traceback" not in shown.err
    assert tiny.tree(tmp_path) == before  # and so the trap of the Lambda layer was not sprung


OTHER_MISTAKES = {
    "no run": (["evaluate", "nosuch"], "There is no run folder nosuch: give the folder that"),
    "no image": (["predict", "{run}"], "Give at least one image file after the run folder"),
    "other classes": (
        ["evaluate", "{run}", "--data", "{others}"],
        "has classes that the run was not trained on (cats, dogs): give images of dots, lines, plain",
    ),
    "summary of what": (["summary", "nosuch"], "Received: 'nosuch'"),
    "summary of no file": (["summary", "nosuch.keras"], "nosuch.keras"),
    "summary of a wrong shape": (
        ["summary", "defect/4", "--image-shape", "30", "28", "1"],
        "patch_size must divide",
    ),
    "inspect what": (["inspect", "nosuch"], "No such file or folder: nosuch"),
}


@pytest.mark.parametrize(("words", "message"), OTHER_MISTAKES.values(), ids=OTHER_MISTAKES.keys())
def test_other_mistakes(words, message, run, tmp_path, capsys):
    others = tiny.draw(tmp_path / "others", classes=("cats", "dogs"), each=2)
    assert code_of([word.format(run=run, others=others) for word in words]) == WRONG_USAGE
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_images_that_changed_since_the_run(run, images, tmp_path, capsys):
    folder = copy_of(run, tmp_path)
    fewer = shutil.copytree(images, tmp_path / "fewer")
    for i in range(6):
        (fewer / "dots" / f"{i}.png").unlink()
    config = folder / "config.json"
    config.write_text(config.read_text().replace(str(images), str(fewer)))
    assert main(["evaluate", str(folder)]) == WRONG_USAGE
    assert "gives 5 test images, the run had 6: the data have changed" in capsys.readouterr().err


@pytest.mark.long
def test_a_reader_that_leaves_early_gets_no_traceback(images):
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
