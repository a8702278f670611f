"""Whole runs that begin with published weights: what they record, predict, resume and leave."""

import dataclasses
import hashlib
import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from keras_vit import ViT, files
from keras_vit.cache import FOLDER
from keras_vit.cli.main import main, parse
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import split_image_set
from keras_vit.evaluation.calibration import softmax
from keras_vit.process.exit_codes import FINE, WRONG_USAGE
from keras_vit.runs.folder import load_run
from keras_vit.runs.predict import predict
from keras_vit.training import loop
from keras_vit.training.adapter import load_adapter
from keras_vit.training.config import from_dict
from tests.helpers import tiny
from tests.helpers.published import answers
from tests.helpers.random_tensors import random_images
from tests.helpers.sources import LICENCE, MEAN, STD, tensors, timm_folder

pytestmark = pytest.mark.long

RUNS = ("probe", "finetune", "lora")
EPOCHS = 2


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def new_images(tmp_path_factory):
    """Colour images of the model's size, and the paths of their files."""
    folder = tmp_path_factory.mktemp("new")
    pixels = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3)).astype("uint8")
    pixels[1] //= 3
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")
    return pixels, [folder / f"{i}.png" for i in range(len(pixels))]


def probabilities(run, pixels, mean=MEAN, std=STD):
    """By numpy but for the bare model: pixels in 0..255 to calibrated probabilities."""
    scaled = ((pixels / 255.0 - np.array(mean)) / np.array(std)).astype("float32")
    return softmax(answers(run.model, scaled) / run.metrics["calibration"]["temperature"])


# What a run records


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("recipe", RUNS)
def test_the_run_says_which_weights_it_began_with(recipe, from_source, source):
    run, printed = from_source(recipe)
    config = json.loads((run.path / "config.json").read_text())
    content = (source / "model.safetensors").read_bytes()
    told = config["weights"]
    assert told["source"] == str(source)
    assert told["family"] == "timm"
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert told["licence"] == LICENCE
    assert (told["mean"], told["std"]) == (list(MEAN), list(STD))
    assert (told["interpolation"], told["image_shape"]) == ("bicubic", [16, 16, 3])
    assert config["preprocessing"] == {
        "image_shape": [16, 16, 3],
        "aspect": "stretch",
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "background": [255],
        "pixel_range": None,
        "tiff_page": None,
        "inverts_values": False,
        "shown_channels": None,
        "exif_orientation": True,
    }
    assert f"weights: {source} (timm), ViT with patches of 8, dim 32, depth 2, 4 heads" in printed
    assert f"licence {LICENCE}" in printed
    assert "images: 16x16x3, bicubic, mean 0.485 0.456 0.406, std 0.229 0.224 0.225" in printed
    page = (run.path / "report.html").read_text()
    for text in (str(source), LICENCE, told["sha256"], "0.485"):
        assert text in page


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("recipe", RUNS)
def test_the_command_repeats_the_run(recipe, from_source):
    run, printed = from_source(recipe)
    (command,) = re.findall("to repeat this run: (.*)", printed)
    assert command == run.config["command"]
    assert dataclasses.replace(parse(shlex.split(command)[1:]).run, out=None) == from_dict(
        run.config["train"]
    )


# Normalisation, end to end


@pytest.mark.parametrize("recipe", RUNS)
def test_predictions_are_those_of_the_bare_model_on_normalised_pixels(recipe, from_source, new_images):
    run, _ = from_source(recipe)
    pixels, paths = new_images
    found = [list(prediction.probabilities.values()) for prediction in predict(run, paths)]
    np.testing.assert_allclose(found, probabilities(run, pixels), atol=1e-5)
    # The images tell these answers from those of the wrong scalings.
    for mean, std in (((0.5,), (0.5,)), (MEAN[::-1], STD[::-1]), ((0.0,), (1.0,))):
        assert np.abs(probabilities(run, pixels, mean, std) - found).max() > 1e-3


@pytest.mark.same_on_every_backend
def test_larger_images_are_resized_as_pillow_does(from_source, tmp_path):
    run, _ = from_source("probe")
    smooth = np.linspace(0, 255, 40 * 56 * 3).reshape(40, 56, 3)
    image = Image.fromarray((smooth + 30 * np.sin(smooth)).clip(0, 255).astype("uint8"))
    image.save(tmp_path / "large.png")
    (prediction,) = predict(run, [tmp_path / "large.png"])
    small = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))[None]
    expected = probabilities(run, small)[0]
    np.testing.assert_allclose(list(prediction.probabilities.values()), expected, atol=2e-3)


@pytest.mark.parametrize("recipe", RUNS)
def test_the_judgement_is_of_the_predictions_on_the_test_part(recipe, from_source, colours):
    """What training computed, from features or batches, agrees with what prediction computes from files."""
    run, _ = from_source(recipe)
    image_set = load_image_set(str(colours))
    split = split_image_set(
        image_set, seed=0, test_fraction=0.2, validation_fraction=0.1, merge_validation=False
    )
    found = predict(run, [image_set.images[i] for i in split.test])
    wrong = {
        image_set.names[i]: answer.label
        for i, answer in zip(split.test, found, strict=True)
        if answer.label != image_set.class_names[image_set.labels[i]]
    }
    assert run.metrics["best"]["accuracy"] == pytest.approx(1 - len(wrong) / len(split.test))
    assert {mistake["name"] for mistake in run.metrics["mistakes"]} == wrong.keys()


# Runs that are cut off


class CutOff(SystemExit):
    """An exception that no code under test catches, like a process that is killed."""


class InTheSecondEpoch(loop.EpochSeconds):
    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == 1:
            raise CutOff


@pytest.mark.parametrize("recipe", ["finetune", "lora"])
def test_a_run_that_was_cut_off_ends_as_an_uncut_one(recipe, from_source, source, colours, tmp_path, capsys):
    uncut, _ = from_source(recipe)
    out = tmp_path / "run"
    words = ["train", "--init", source, "--data", colours, "--out", out, *tiny.NO_XLA]
    words += ["--recipe", recipe, "--epochs", str(EPOCHS), "--batch-size", "8"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "EpochSeconds", InTheSecondEpoch)
        with pytest.raises(CutOff):
            main([str(word) for word in words])
    assert files.partial_of(out).is_dir()
    other = [*map(str, words), "--resume"]
    other[other.index(str(source))] = str(tmp_path / "others")
    assert main(other) == WRONG_USAGE
    assert "was started with another init" in capsys.readouterr().err

    assert main(["train", "--out", str(out), "--resume"]) == FINE

    run = load_run(out)
    for ours, theirs in zip(run.model.get_weights(), uncut.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert run.config["weights"] == uncut.config["weights"]
    assert {path.name for path in run.path.iterdir()} == {path.name for path in uncut.path.iterdir()}


def test_a_probe_that_was_cut_off_leaves_nothing(source, colours, tmp_path, monkeypatch):
    """It takes seconds and its features are kept: it is begun again, not resumed."""

    def cut(*arguments, **options):
        raise CutOff

    monkeypatch.setattr("keras_vit.training.probe.write_run", cut)
    words = ["train", "--init", source, "--data", colours, "--out", tmp_path / "run", "--recipe", "probe"]
    with pytest.raises(CutOff):
        main([str(word) for word in words])
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.same_on_every_backend
def test_a_probe_that_was_killed_is_made_again_with_its_settings(from_source, tmp_path, capsys):
    """A killed process leaves the folder with the settings of the run. It has no epochs to continue from."""
    uncut, _ = from_source("probe")
    out = tmp_path / "run"
    files.partial_of(out).mkdir()
    settings = (uncut.path / "config.json").read_text()
    (files.partial_of(out) / "config.json").write_text(settings)
    assert main(["train", "--out", str(out), "--resume"]) == FINE
    begins = "holds no finished epoch: the run begins anew; its settings are those it was begun with"
    assert begins in capsys.readouterr().out

    run = load_run(out)
    for ours, theirs in zip(run.model.get_weights(), uncut.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not files.partial_of(out).exists()
    assert main(["train", "--out", str(out), "--resume"]) == FINE  # nothing is left to do


@pytest.mark.same_on_every_backend
def test_other_weights_under_the_same_name_are_not_resumed(from_source, tmp_path, capsys):
    uncut, _ = from_source("finetune")
    config = json.loads((uncut.path / "config.json").read_text())
    folder = timm_folder(tmp_path / "source")
    changed = {name: tensor + 0.01 for name, tensor in tensors().items()}
    save_file(changed, folder / "model.safetensors")
    config["train"]["init"] = config["weights"]["source"] = str(folder)
    out = tmp_path / "run"
    files.partial_of(out).mkdir()
    (files.partial_of(out) / "config.json").write_text(json.dumps(config))
    tiny.seal_again(files.partial_of(out))
    assert main(["train", "--out", str(out), "--resume"]) == WRONG_USAGE
    assert f"{folder} holds other weights than when {files.partial_of(out)} was" in capsys.readouterr().err
    assert [path.name for path in files.partial_of(out).iterdir()] == ["config.json"]


# LoRA


def test_the_adapter_and_the_source_are_the_model_of_the_run(from_source, source):
    run, _ = from_source("lora")
    base = ViT.from_pretrained(source, num_classes=0)
    model = load_adapter(base, run.path / "adapter.safetensors")
    images = random_images((16, 16, 3))
    expected = answers(run.model, images)
    np.testing.assert_allclose(answers(model, images), expected, atol=1e-5)
    # These did change in the run, beside the head.
    before = {weight.path: value for weight, value in zip(base.weights, base.get_weights(), strict=True)}
    after = {
        weight.path: value for weight, value in zip(run.model.weights, run.model.get_weights(), strict=True)
    }
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {
        f"block_{i}/attention/{name}/kernel" for i in range(2) for name in ("qkv", "projection")
    }
    assert (run.path / "adapter.safetensors").stat().st_size < 1_000_000
