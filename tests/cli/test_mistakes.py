"""Mistakes of a user: the command prints one sentence, returns an exit code and writes nothing."""

import io
import os
import shutil
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit.cli.main import main
from keras_vit.process.exit_codes import FAILED, WRONG_USAGE
from tests.helpers import tiny

pytestmark = pytest.mark.usefixtures("tiny_size")


@pytest.fixture(scope="module")
def run(trained):
    return trained[0]


# Bad images: no run folder is made


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
    "one class": (one_class, '{data} holds only one class, "dots". A classifier needs two or more'),
    "a class with 1 image": (one_image, 'Class "rare" has 1 image in {data}; it needs at least 3'),
    "text named .jpg": (with_file("a.jpg", b"hello"), "dots/a.jpg: not a readable JPEG, PNG"),
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
    "not a zip": (text_as("images.zip"), "{data} is not a zip file"),
    "not an npz": (text_as("images.npz"), "{data}"),
    "a text file": (text_as("images.txt"), "{data} has not a path and a label in line 1: give a path"),
    "a document": (
        text_as("images.doc"),
        "{data} is not a folder, nor a file of a kind that is read (.zip, .npz",
    ),
    "one image": (
        lambda folder: tiny.draw(folder / "images") / "dots" / "0.png",
        "{data} is one image. Give the folder that holds the folders of the classes",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_bad_images_stop_the_training_before_it_begins(make, message, tmp_path, capsys):
    data = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert tiny.code_of(tiny.command(data, tmp_path / "runs" / "run")) == WRONG_USAGE
    shown = capsys.readouterr()
    assert shown.err.startswith("keras-vit: ")
    assert message.format(data=data) in shown.err
    assert "Traceback" not in shown.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["no such folder", "empty folder", "a zip with ../"])
def test_inspect_and_evaluate_refuse_bad_images_too(name, run, tmp_path, capsys):
    make, message = BAD_IMAGES[name]
    data = make(tmp_path)
    for command in (["inspect", str(data)], ["evaluate", str(run), "--data", str(data)]):
        assert main(command) == WRONG_USAGE
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
    "heads": (
        ("--num-heads", "3"),
        "unless head_dim is given. Received: num_heads=3, dim=8",
    ),
    "stem and patch": (("--model", "S/14", "--stem", "conv"), "Received: patch_size=14 for S/14"),
    "no settings": (("--config", "nosuch.json"), "There is no file nosuch.json: give the best.json of a"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options(options, message, images, tmp_path, capsys):
    assert tiny.code_of(tiny.command(images, tmp_path / "runs" / "run", *options)) == WRONG_USAGE
    shown = capsys.readouterr().err
    assert shown.startswith("keras-vit: ")
    assert message in shown
    assert "Traceback" not in shown
    assert "tyro" not in shown
    assert list(tmp_path.iterdir()) == []


def test_resume_without_out(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tiny.code_of(["train", "--resume"]) == WRONG_USAGE
    assert capsys.readouterr().err == "keras-vit: Which run is to be resumed? Give its folder with --out.\n"
    assert list(tmp_path.iterdir()) == []


def test_an_existing_out_is_not_changed(run, images, capsys):
    before = tiny.tree(run)
    assert main(tiny.command(images, run)) == WRONG_USAGE
    assert f"{run} exists already: choose another --out, or remove it" in capsys.readouterr().err
    assert tiny.tree(run) == before


def test_out_is_the_working_directory(images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(tiny.command(images, ".")) == WRONG_USAGE
    assert "exists already" in capsys.readouterr().err


def test_out_below_a_file(images, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(tiny.command(images, tmp_path / "file" / "run")) in (FAILED, WRONG_USAGE)
    shown = capsys.readouterr().err
    assert "cannot be made (" in shown
    assert str(tmp_path / "file") in shown
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_out_in_a_folder_that_cannot_be_written(images, tmp_path, capsys):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert main(tiny.command(images, locked / "run")) == WRONG_USAGE
    assert "cannot be written to: choose another --out" in capsys.readouterr().err
    assert list(locked.iterdir()) == []


# Bad run folders


def lambda_model(folder):
    """A model.keras with code that loading would run."""
    written_file = str(folder.parent / "was_run")
    # A real lambda: its bytecode is in the file, and only the safe mode prevents it from running.
    layer = keras.layers.Lambda(lambda x: (open(written_file, "w").close(), x)[1])
    inputs = keras.Input((28, 28, 1))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(layer(inputs)))
    keras.Model(inputs, outputs).save(folder / "model.keras")
    os.unlink(written_file)  # written when the model was made


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def truncate_model(folder):
    path = folder / "model.keras"
    path.write_bytes(path.read_bytes()[:-500])


BAD_RUNS = {
    "no model": (remove("model.keras"), "{run} is not a run folder, it has no model.keras: give one that"),
    "no metrics": (remove("metrics.json"), "{run} is not a run folder, it has no metrics.json"),
    "a Lambda layer": (
        lambda_model,
        "model.keras holds code (a Lambda layer), which is not run: save the model without Lambda layers",
    ),
    "a truncated model": (truncate_model, "model.keras cannot be read as a Keras model"),
    "a text for a model": (write("model.keras", "hello"), "model.keras cannot be read as a Keras model"),
    "a damaged config": (write("config.json", '{"model": '), "config.json is not JSON"),
    "another config": (write("config.json", "{}"), "config.json is damaged (data is missing)"),
    "a list for a config": (write("config.json", "[]"), "config.json is damaged (it is not a JSON object)"),
    "damaged metrics": (write("metrics.json", ""), "metrics.json is not JSON"),
}


@pytest.mark.parametrize(("damage", "message"), BAD_RUNS.values(), ids=BAD_RUNS.keys())
def test_bad_run_folders(damage, message, run, images, tmp_path, capsys):
    folder = tiny.copy_of(run, tmp_path)
    whole = (folder / "config.json").read_bytes()
    damage(folder)
    if (folder / "config.json").read_bytes() == whole:
        tiny.seal_again(folder)
    before = tiny.tree(tmp_path)
    commands = [["evaluate", folder], ["predict", folder, images / "dots" / "0.png"], ["summary", folder]]
    for command in commands:
        assert tiny.code_of(command) == WRONG_USAGE
        shown = capsys.readouterr()
        assert shown.out == ""
        assert message.format(run=folder) in shown.err
        assert "Traceback" not in shown.err
    assert tiny.tree(tmp_path) == before  # the code in the Lambda layer did not run


OTHER_MISTAKES = {
    "no run": (["evaluate", "nosuch"], "There is no run folder nosuch: give the folder that"),
    "no image": (["predict", "{run}"], "Give at least one image file after the run folder"),
    "other classes": (
        ["evaluate", "{run}", "--data", "{others}"],
        "has classes that the run was not trained on (cats, dogs): give images of dots, lines, plain",
    ),
    "summary without a name": (["summary", "nosuch"], "Received: 'nosuch'"),
    "summary of no file": (["summary", "nosuch.keras"], "nosuch.keras"),
    "summary of a wrong shape": (
        ["summary", "defect/4", "--image-shape", "30", "28", "1"],
        "patch_size must divide",
    ),
    "inspect without images": (["inspect", "nosuch"], "No such file or folder: nosuch"),
}


@pytest.mark.parametrize(("command", "message"), OTHER_MISTAKES.values(), ids=OTHER_MISTAKES.keys())
def test_other_mistakes(command, message, run, tmp_path, capsys):
    others = tiny.draw(tmp_path / "others", classes=("cats", "dogs"), each=2)
    assert tiny.code_of([argument.format(run=run, others=others) for argument in command]) == WRONG_USAGE
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_changed_images(run, images, tmp_path, capsys):
    folder = tiny.copy_of(run, tmp_path)
    fewer = shutil.copytree(images, tmp_path / "fewer")
    for i in range(11):
        (fewer / "dots" / f"{i}.png").unlink()
    config = folder / "config.json"
    config.write_text(config.read_text().replace(str(images), str(fewer)))
    tiny.seal_again(folder)
    assert main(["evaluate", str(folder)]) == WRONG_USAGE
    assert f"The images in {fewer} have changed: " in capsys.readouterr().err
