"""Searches from published weights: each trial begins as `keras-vit train` does, and best.json repeats it."""

import csv
import dataclasses
import json

import keras_tuner
import numpy as np
import pytest

from keras_vit.errors import InputError
from keras_vit.evaluation.trials import SearchRecord
from keras_vit.model.weights.export import export_weights
from keras_vit.runs.folder import load_run
from keras_vit.search.best import best_config, train_config_at
from keras_vit.search.config import SearchConfig
from keras_vit.search.results import read_search
from keras_vit.search.worker import Job, make_hypermodel, prepare_images
from keras_vit.training.config_file import read_config
from keras_vit.training.start import begin
from keras_vit.training.train import train
from tests.helpers import tiny
from tests.helpers.published import random_vit
from tests.search.running import case_name, finish, start_words

VIT = dict(image_shape=(16, 16, 3), num_classes=5, dim=32, depth=2, num_heads=2, mlp_dim=64, patch_size=4)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
XLA = None if tiny.BACKEND == "jax" else False
POINTS = {
    "finetune": dict(layer_decay=0.6, unfrozen_share=0.5, drop_path_rate=0.0, learning_rate=2e-3),
    "all of it": dict(unfrozen_share=1.0, weight_decay=0.1, augmentation=0.0),
    "lora": dict(lora_rank=2, learning_rate=4e-3),
}


@pytest.fixture(scope="module")
def weights(made_once):
    """A folder of weights as Hugging Face has them, with a normalisation of its own."""

    def make(path):
        export_weights(
            random_vit(VIT), path, "huggingface", mean=MEAN, std=STD, interpolation="bicubic", aspect="crop"
        )

    return made_once("weights of a search", make)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_VIT_CACHE", str(tmp_path / "cache"))


def config_of(weights, images, name, **settings):
    settings = {"freeze": ("batch_size=8",), "max_epochs": 2, "xla": XLA, "seed": 3, **settings}
    recipe = "lora" if name == "lora" else "finetune"
    return SearchConfig(init=str(weights), recipe=recipe, data=str(images), **settings)


def hypermodel_of(config):
    """The hypermodel of a search, as its processes make it."""
    images = prepare_images(config)
    config = dataclasses.replace(config, weights=images.first.known)
    return config, make_hypermodel(Job(config, images, None))


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "finetune",
        *(pytest.param(name, marks=pytest.mark.same_on_every_backend) for name in ("all of it", "lora")),
    ],
)
def test_the_run_equals_the_trial(name, weights, images, tmp_path):
    config, hypermodel = hypermodel_of(config_of(weights, images, name))
    hp = keras_tuner.HyperParameters()
    hp.values.update(POINTS[name])
    values = config.search_space().declare(hp)
    assert {**values, **POINTS[name]} == values
    tried = hypermodel.build(hp)
    first = [np.array(weight) for weight in tried.get_weights()]
    history = hypermodel.fit(hp, tried, verbose=0).history

    run = train(train_config_at(values, config.train_config), out=tmp_path / "run")
    with open(run.path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for column in ("loss", "accuracy", "val_loss", "val_accuracy"):
        found = [float(row[column]) for row in rows]
        assert found == pytest.approx(history[column], rel=1e-4, abs=1e-6), column
    # A second trial of the same process begins as the first one did.
    again = hypermodel.build(hp).get_weights()
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_images_are_prepared_as_the_weights_want_them(weights, images):
    config, hypermodel = hypermodel_of(config_of(weights, images, "finetune"))
    expected = begin(config.train_config).preprocessing
    assert hypermodel.data.preprocessing == expected
    assert (expected.mean, expected.std, expected.interpolation) == (MEAN, STD, "bicubic")
    assert expected.image_shape == config.image_shape == hypermodel.data.image_shape == (16, 16, 3)
    # The same image by numpy: the images of the search are in 0..255 until the batches scale them.
    raw = np.asarray(hypermodel.data.image_set.images[0], "float32")
    assert raw.min() >= 0.0
    assert raw.max() > 2.0
    batch, _ = next(iter(hypermodel.data.with_batches(1, hypermodel.data.augmentation).validation))
    pixels = np.asarray(hypermodel.data.image_set.images[hypermodel.data.split.validation[0]], "float32")
    np.testing.assert_allclose(np.asarray(batch)[0], (pixels / 255.0 - MEAN) / STD, atol=1e-4)


def test_a_trial_begins_with_the_head_of_a_probe(weights, images):
    config, hypermodel = hypermodel_of(config_of(weights, images, "finetune", image_size=32))
    assert config.weights.image_shape == (32, 32, 3)
    model = hypermodel.build(keras_tuner.HyperParameters())
    data = hypermodel.data
    train = data.split.train
    pixels = np.stack([np.asarray(data.image_set.images[i], "float32") for i in train])
    logits = model.predict((pixels / 255.0 - MEAN).astype("float32") / np.float32(STD), verbose=0)
    # A new head answers 0 for every class; these classes differ so much that a line separates them.
    assert (logits.argmax(axis=1) == data.labels("train")).mean() > 0.9


@pytest.mark.same_on_every_backend
def test_a_rank_above_the_width_is_refused(weights, images):
    with pytest.raises(InputError, match="lora_rank must be 32 at most, the width of this model"):
        prepare_images(config_of(weights, images, "lora", freeze=("batch_size=8", "lora_rank=64")))


@pytest.mark.same_on_every_backend
def test_other_weights_under_the_same_name_are_refused(weights, images):
    config, _ = hypermodel_of(config_of(weights, images, "finetune"))
    other = dataclasses.replace(config, weights=dataclasses.replace(config.weights, sha256="0" * 64))
    with pytest.raises(InputError, match="have changed since searches/finetune was started: bring them back"):
        prepare_images(other)


@pytest.mark.same_on_every_backend
@pytest.mark.long
@pytest.mark.parametrize("recipe", ["finetune", "lora"])
def test_a_search_by_the_command(recipe, weights, images, tmp_path):
    out = tmp_path / "search"
    words = ["--init", weights, "--recipe", recipe, "--max-epochs", "2", "--factor", "2", "--max-trials", "3"]
    printed = finish(start_words(images, out, *words, "--freeze", "batch_size=8"))
    assert "images: 16x16x3, bicubic, mean 0.4 0.5 0.6, std 0.2 0.25 0.3" in printed.splitlines()
    record = read_search(out)
    assert [trial.status for trial in record.trials] == ["COMPLETED"] * 3
    assert record.trials[2].promoted_from in ("0000", "0001")
    assert all(trial.parameters == record.config["asked"]["weights"]["parameters"] for trial in record.trials)
    assert record.config["weights"]["mean"] == list(MEAN)

    best = read_config(out / "best.json")
    assert (best.init, best.recipe.epochs, best.recipe.batch_size) == (str(weights), 2, 8)
    assert json.loads((out / "best.json").read_text())["found"]["trial"] == record.best.trial_id
    final = load_run(out / f"best-{record.best.trial_id}")
    assert final.config["recipe"] == json.loads((out / "best.json").read_text())["recipe"]
    assert final.config["preprocessing"]["mean"] == list(MEAN)
    assert final.config["data"]["counts"]["validation"] == 0
    page = (out / "report.html").read_text()
    assert "patch size" not in page
    assert ("lora rank" if recipe == "lora" else "layer decay") in page
    # The trial that was promoted ends as a run of its point does that was not cut off.
    promoted = record.trials[2]
    run = train(best_config(SearchRecord(out, record.config, [promoted])), out=tmp_path / "run")
    with open(run.path / "history.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    for column in ("loss", "val_loss"):
        assert float(last[column]) == pytest.approx(promoted.history[-1][column], rel=1e-3), column


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--init", "nosuch"], "nosuch"),
        (["--init", "nosuch", "--space", "small"], "which --space small searches: omit one of the two"),
    ],
    ids=case_name,
)
@pytest.mark.same_on_every_backend
@pytest.mark.long
def test_wrong_weights_leave_no_folder(words, sentence, images, tmp_path):
    printed = finish(start_words(images, tmp_path / "new" / "search", *words), code=2)
    assert sentence in printed.splitlines()[-1]
    assert tiny.tree(tmp_path) == {}
