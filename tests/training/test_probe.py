"""The probe: a head that scikit-learn would fit, to features that are computed once."""

import csv
import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

import keras_vit
from keras_vit import ViT
from keras_vit.cache import FOLDER
from keras_vit.errors import InputError
from keras_vit.evaluation.calibration import fit_temperature, softmax
from keras_vit.training.config import TrainConfig
from keras_vit.training.head import FOLDS, GRID, Head, fit_head
from keras_vit.training.probe import _calibration
from keras_vit.training.recipe import RECIPES
from tests.helpers import tiny
from tests.helpers.published import answers, recorded, tensors_of
from tests.helpers.sources import MEAN, STD, draw_colours


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    """A cache of its own for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(FOLDER, str(folder))
    return folder


def blobs(each, classes=3, width=5, spread=1.0, seed=0):
    """Features of classes that overlap, of different means and scales, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = rng.normal(0, 1.5, (classes, width))
    features = centres[labels] + rng.normal(0, spread, (len(labels), width))
    return (features * np.geomspace(0.1, 30, width) + 5).astype("float32"), labels


# The fit


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_head_is_the_logistic_regression_of_scikit_learn(classes, weighted):
    features, labels = blobs(12, classes)
    weight = np.linspace(0.2, 1, len(labels)) if weighted else None

    head = fit_head(features, labels, classes, weight)

    assert head.kernel.dtype == head.bias.dtype == np.float32
    assert (head.kernel.shape, head.bias.shape) == ((5, classes), (classes,))
    (chosen,) = [row for row in head.grid if row["strength"] == head.strength]
    assert chosen["accuracy"] < 1  # so a temperature is the best
    scaler = StandardScaler().fit(features)
    other, _ = blobs(20, classes, seed=1)
    found = softmax(head.logits(other))
    # The same solver, and one that runs until nothing changes: the head stops early enough to be fast.
    for tolerance, allowed in ((1e-3, 1e-3), (1e-8, 0.05)):
        model = LogisticRegression(C=head.strength, tol=tolerance, max_iter=10_000)
        model.fit(scaler.transform(features), labels, sample_weight=weight)
        logits = model.decision_function(scaler.transform(other)) / chosen["temperature"]
        if classes == 2:  # the logit of the second class; the head has one for each
            logits = np.stack([-logits / 2, logits / 2], axis=1)
        np.testing.assert_allclose(found, softmax(logits), atol=allowed)


@pytest.mark.same_on_every_backend
def test_the_copies_of_an_image_stay_in_one_fold():
    """Labels that the features do not tell: only a copy of the image itself would."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 100)).astype("float32"), np.arange(60) % 2
    copies, image_of = np.tile(features, (3, 1)), np.tile(np.arange(60), 3)
    known = fit_head(copies, np.tile(labels, 3), 2).grid
    found = fit_head(copies, np.tile(labels, 3), 2, image_of=image_of)
    assert max(row["accuracy"] for row in known) == 1
    assert all(0.2 < row["accuracy"] < 0.75 for row in found.grid)
    assert found.judged_on == "5 folds of the 60 training images"
    once = fit_head(features, labels, 2)
    assert [row["accuracy"] for row in once.grid] == [
        row["accuracy"] for row in fit_head(features, labels, 2, image_of=np.arange(60)).grid
    ]


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("each", [2, 3, 15])
def test_the_strength_is_chosen_by_the_calibrated_loss_of_the_folds(each):
    features, labels = blobs(each, spread=3.0)

    head = fit_head(features, labels, 3)

    folds = list(StratifiedKFold(min(FOLDS, each), shuffle=True, random_state=0).split(features, labels))
    losses = []
    for row, strength in zip(head.grid, GRID, strict=True):
        assert row["strength"] == strength
        logits = np.zeros((len(labels), 3))
        for inner, outer in folds:
            scaler = StandardScaler().fit(features[inner])
            model = LogisticRegression(C=strength, tol=1e-3, max_iter=1000)
            model.fit(scaler.transform(features[inner]), labels[inner])
            logits[outer] = model.decision_function(scaler.transform(features[outer]))
        probabilities = softmax(logits / fit_temperature(logits, labels))
        losses.append(-np.log(probabilities[np.arange(len(labels)), labels]).mean())
        assert row["log_loss"] == pytest.approx(losses[-1], abs=2e-3)
        assert row["accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean())
    assert losses[GRID.index(head.strength)] == pytest.approx(min(losses), abs=2e-3)
    assert head.judged_on == f"{len(folds)} folds of the {3 * each} training images"


@pytest.mark.same_on_every_backend
def test_the_logits_of_each_image_are_of_a_head_without_its_fold():
    features, labels = blobs(15, spread=3.0)
    head = fit_head(features, labels, 3)
    (chosen,) = [row for row in head.grid if row["strength"] == head.strength]
    for inner, outer in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, labels):
        scaler = StandardScaler().fit(features[inner])
        model = LogisticRegression(C=head.strength, tol=1e-3, max_iter=10_000)
        model.fit(scaler.transform(features[inner]), labels[inner])
        logits = model.decision_function(scaler.transform(features[outer])) / chosen["temperature"]
        np.testing.assert_allclose(softmax(head.out_of_fold[outer]), softmax(logits), atol=1e-3)
    # They are less sure than those of the head that has seen the images.
    own = softmax(head.logits(features))[np.arange(45), labels]
    assert softmax(head.out_of_fold)[np.arange(45), labels].mean() < own.mean() - 0.02
    assert fit_head(*blobs(1), 3).out_of_fold is None


@pytest.mark.same_on_every_backend
def test_corrupted_copies_calibrate_nothing():
    rows = np.arange(18.0).reshape(6, 3)  # two images, and two copies of each behind them
    head = Head(np.zeros((4, 3)), np.zeros(3), 1.0, [], "folds", 0.0, rows)
    found = _calibration(head, np.array([0, 1]), np.full((1, 3), 7.0), np.array([2]))
    np.testing.assert_array_equal(found.logits, [*rows[:2], [7.0] * 3])
    assert found.labels.tolist() == [0, 1, 2]


@pytest.mark.same_on_every_backend
def test_a_class_with_one_image_takes_the_middle_of_the_grid():
    features, labels = blobs(6, spread=0.05)
    features, labels = features[:-5], labels[:-5]
    head = fit_head(features, labels, 3)
    assert head.strength == GRID[3]
    assert head.grid == []
    assert head.judged_on == "nothing: a class has one image only"
    found = head.logits(features)
    assert (found.argmax(axis=1)[:12] == labels[:12]).all()
    assert found[:, 2].argmax() == 12  # of all images, that of the class looks most like it


@pytest.mark.same_on_every_backend
def test_a_class_without_images_is_never_the_answer():
    """As when a part of the classes has no image in the training part."""
    features, labels = blobs(6, classes=2)
    logits = fit_head(features, labels, 4).logits(features)
    assert logits.shape == (12, 4)
    assert set(logits.argmax(axis=1)) == {0, 1}
    assert softmax(logits)[:, 2:].max() < 1e-6


@pytest.mark.same_on_every_backend
def test_a_feature_that_never_varies_does_no_harm():
    features, labels = blobs(10, spread=0.2)
    features[:, 2] = 7.0
    head = fit_head(features, labels, 3)
    assert np.isfinite(head.kernel).all()
    assert (head.logits(features).argmax(axis=1) == labels).all()


# Runs


@pytest.fixture(scope="module")
def many(made_once):
    """Enough images per class for the cross-validation: 21 or more of training."""
    return made_once("many_colours", lambda folder: draw_colours(folder, each=30))


def probe(source, images, out, **settings):
    recipe = settings.pop("recipe", RECIPES["probe"])
    return keras_vit.train(init=str(source), data=str(images), out=out, recipe=recipe, **settings)


@pytest.mark.long
def test_a_probe_of_many_images(source, many, tmp_path, capsys):
    run = probe(source, many, tmp_path / "first")
    told = run.metrics["probe"]
    assert [row["strength"] for row in told["grid"]] == list(GRID)
    assert told["strength"] in GRID
    assert (told["width"], told["fitted_to"]) == (64, run.config["data"]["counts"]["train"])
    assert (told["computed"], told["from_cache"]) == (90, 0)
    assert run.metrics["best"]["accuracy"] > 0.8
    # The training images calibrate the prediction sets, too.
    sets, counts = run.metrics["prediction_sets"], run.config["data"]["counts"]
    assert sets["images"] == counts["train"] + counts["validation"]
    assert "each by a head that was fitted without it" in sets["fitted_on"]
    # The backbone stayed as it was in the file; only the head is new.
    bare = ViT.from_pretrained(source, num_classes=0)
    frozen = {weight.path: value for weight, value in zip(bare.weights, bare.get_weights(), strict=True)}
    for weight, value in zip(run.model.weights, run.model.get_weights(), strict=True):
        if not weight.path.startswith("head/"):
            np.testing.assert_array_equal(value, frozen[weight.path], err_msg=weight.path)
    with open(run.path / "history.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["val_accuracy"]) == pytest.approx(run.metrics["best"]["accuracy"], abs=0.5)
    assert not (run.path / "tensorboard").exists()
    capsys.readouterr()

    again = probe(source, many, tmp_path / "again")
    assert (again.metrics["probe"]["computed"], again.metrics["probe"]["from_cache"]) == (0, 90)
    assert "features: 0 images computed, 90 from the cache" in capsys.readouterr().out
    for ours, theirs in zip(again.model.get_weights(), run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.long
def test_a_fine_tuning_finds_the_features_of_the_probe_and_begins_with_its_head(
    source, many, tmp_path, capsys, monkeypatch
):
    first = probe(source, many, tmp_path / "probe")
    capsys.readouterr()
    begun = {}

    def stop(model, *arguments):
        begun["head"] = model.get_layer("head").get_weights()
        raise InputError("enough")

    monkeypatch.setattr("keras_vit.training.run.compile_model", stop)
    with pytest.raises(InputError, match="enough"):
        probe(source, many, tmp_path / "tuned", recipe=RECIPES["finetune"], changes={"drop_path_rate": 0.1})
    count = first.config["data"]["counts"]["train"]
    printed = capsys.readouterr().out
    assert f"head: fitted to the features of {count} training images (0 computed, {count} from" in printed
    for ours, theirs in zip(begun["head"], first.model.get_layer("head").get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not (tmp_path / "tuned").exists()
    assert not (tmp_path / "tuned.partial").exists()


@pytest.mark.same_on_every_backend
@pytest.mark.long
def test_the_hidden_layer_of_the_file_stands_before_the_head(many, tmp_path):
    """Google's pre-logits: the head is fitted to what the model gives it."""
    file = tmp_path / "weights.safetensors"
    save_file(tensors_of(recorded("timm")["pre-logits"]), file)
    settings = dict(mean=MEAN, std=STD, changes={"num_heads": 4})
    run = probe(file, many, tmp_path / "run", **settings)
    assert run.model.config.head_hidden_dim == 24
    assert run.metrics["probe"]["width"] == 24
    kernel = run.model.get_layer("head_hidden").get_weights()[0]
    np.testing.assert_array_equal(
        kernel.T, tensors_of(recorded("timm")["pre-logits"])["pre_logits.fc.weight"]
    )
    # The files of the test part, by the model that was saved: as many are right as the run says.
    report = keras_vit.evaluate(run)
    assert report["accuracy"] == pytest.approx(run.metrics["best"]["accuracy"])
    assert report["accuracy"] > 0.6


@pytest.mark.same_on_every_backend
@pytest.mark.long
def test_a_probe_of_a_run_of_two_classes(trained, tmp_path):
    """The source is a run of this package for other classes; scikit-learn has one row for two classes."""
    images = tiny.draw(tmp_path / "images", classes=("lines", "plain"), each=30)
    run = probe(trained[0], images, tmp_path / "run")
    assert run.class_names == ("lines", "plain")
    assert run.metrics["best"]["accuracy"] > 0.8
    assert run.metrics["probe"]["grid"]
    pixels = np.stack([tiny.pixels("plain", np.random.default_rng(i), (28, 28)) for i in range(4)])
    logits = answers(run.model, (pixels[..., None] / 127.5 - 1).astype("float32"))
    np.testing.assert_allclose(logits[:, 0], -logits[:, 1], atol=1e-4)


@pytest.mark.same_on_every_backend
@pytest.mark.long
def test_weights_that_are_drawn_keep_no_features(source, colours, tmp_path, cache):
    """Attention pooling that the file does not have is random: its features belong to this run."""
    run = probe(source, colours, tmp_path / "run", changes={"pooling": "map"})
    assert run.model.config.pooling == "map"
    assert list(cache.iterdir()) == []


@pytest.mark.same_on_every_backend
@pytest.mark.long
def test_a_cache_that_cannot_be_used_is_said_and_the_run_goes_on(
    source, colours, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("a file stands here")
    monkeypatch.setenv(FOLDER, str(tmp_path / "file"))
    run = probe(source, colours, tmp_path / "run")
    assert capsys.readouterr().out.count("The features are not kept in the cache: ") == 1
    assert json.loads((run.path / "metrics.json").read_text())["probe"]["from_cache"] == 0


@pytest.mark.same_on_every_backend
def test_a_probe_without_published_weights_is_refused(colours, tmp_path):
    config = TrainConfig(data=str(colours), out=tmp_path / "run", recipe=RECIPES["probe"])
    with pytest.raises(InputError, match="trains the head alone, which needs published weights: add --init"):
        keras_vit.train(config)
    assert list(tmp_path.iterdir()) == []
