"""Labels spread to images without any, and the heads of few or of spread labels."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_vit.data.decode import Decoding
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import split_image_set
from keras_vit.errors import InputError
from keras_vit.training.head import STRENGTH_OF_FEW, fit_few, fit_head, fit_spread
from keras_vit.training.spread import ALPHA, NEIGHBOURS, Spread, Unlabeled, read_unlabeled, spread_labels
from tests.helpers import tiny

pytestmark = pytest.mark.same_on_every_backend


def clusters(each, spread=0.3, width=6, classes=3, seed=0):
    """Features and labels of images around one centre per class, in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(each * classes) % classes
    centres = np.eye(classes, width) * 4
    return centres[labels] + rng.normal(0, spread, (len(labels), width)), labels


def by_hand(rows, labels, classes):
    """Zhou's closed form with a dense matrix: (I - alpha S)^-1 Y, each row divided by its sum."""
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    squares = ((rows[:, None] - rows) ** 2).sum(axis=2)
    np.fill_diagonal(squares, np.inf)
    weights = np.zeros_like(squares)
    nearest = np.argsort(squares, axis=1)[:, :NEIGHBOURS]
    scale = np.sqrt(np.sort(squares, axis=1)[:, NEIGHBOURS - 1])
    for i, neighbours in enumerate(nearest):
        for j in neighbours:
            weights[i, j] = np.exp(-squares[i, j] / (scale[i] * scale[j]))
    weights = weights + weights.T
    degrees = weights.sum(axis=1)
    similar = weights / np.sqrt(degrees[:, None] * degrees)
    known = np.zeros((len(rows), classes))
    known[np.arange(len(labels)), labels] = 1
    found = np.linalg.solve(np.eye(len(rows)) - ALPHA * similar, known)
    return (found / found.sum(axis=1, keepdims=True))[len(labels) :]


def test_the_probabilities_are_those_of_the_closed_form():
    rows, labels = clusters(20, spread=1.0)
    found = spread_labels(rows[:9], labels[:9], rows[9:], 3)
    np.testing.assert_allclose(found, by_hand(rows, labels[:9], 3), atol=2e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.ptp(found.max(axis=1)) > 0.1  # some are in doubt


@pytest.mark.parametrize(
    ("labelled", "unlabeled"),
    [(1, 30), (5, 30), (1, 1), (2, 2), (5, 1), (40, 5)],
    ids=lambda number: str(number),
)
def test_any_number_of_images_is_enough(labelled, unlabeled):
    """One labelled image per class, fewer images than neighbours, and the other way round."""
    rows, labels = clusters(labelled + unlabeled)
    split = 3 * labelled
    found = spread_labels(rows[:split], labels[:split], rows[split:], 3)
    assert (found.argmax(axis=1) == labels[split:]).all()


def test_a_chain_of_like_images_carries_a_label_around_a_corner():
    """Two moons: the nearest labelled image is often of the other class."""
    angle = np.linspace(0, np.pi, 100)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    # Far from the origin of a third feature, the cosine is as good as the distance.
    rows = np.concatenate([upper, lower])
    rows = np.concatenate([rows, np.sqrt(9 - (rows - rows.mean(axis=0)) ** 2 @ [1, 1])[:, None]], axis=1)
    labels = np.repeat([0, 1], 100)
    known, rest = [0, 100], np.setdiff1d(np.arange(200), [0, 100])
    found = spread_labels(rows[known], labels[known], rows[rest], 2).argmax(axis=1)
    distances = np.linalg.norm(rows[rest, None] - rows[known], axis=2)
    assert (distances.argmin(axis=1) == labels[rest]).mean() < 0.8
    assert (found == labels[rest]).mean() > 0.95


def test_copies_and_constant_features_give_numbers():
    rows, labels = clusters(20)
    rows = np.concatenate([rows, np.repeat(rows[:1], 30, axis=0)])
    rows[:, -1] = 1.0
    found = spread_labels(rows[:3], labels[:3], rows[3:], 3)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1)[-30:] == labels[0]).all()
    same = spread_labels(np.ones((2, 4)), np.array([0, 1]), np.ones((9, 4)), 2)
    assert np.isfinite(same).all()


def unreached():
    """The labels of 18 images like those with the label a, 19 like that with b, and 20 like neither."""
    rows = np.repeat(np.eye(3), 4, axis=1)[np.repeat([0, 1, 2], 20)]
    rows = rows + np.random.default_rng(0).normal(0, 0.05, rows.shape)
    known, rest = [0, 1, 20], np.setdiff1d(np.arange(60), [0, 1, 20])
    probabilities = spread_labels(rows[known], np.array([0, 0, 1]), rows[rest], 2)
    names = tuple(f"{i}.png" for i in range(57))
    images = Unlabeled("more", names, names, {"unreadable": 2})
    return Spread(images, ("a", "b"), probabilities, np.array([2, 1]))


def test_an_image_that_no_label_reaches_is_not_trusted(tmp_path):
    spread = unreached()
    assert spread.trusted.tolist() == [True] * 37 + [False] * 20
    spread.write(tmp_path / "unlabeled.csv")
    with open(tmp_path / "unlabeled.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "confidence", "trusted", "probability_a", "probability_b"]
    assert [row["path"] for row in rows] == list(spread.unlabeled.names)
    assert [(row["label"], row["trusted"]) for row in rows] == (
        [("a", "yes")] * 18 + [("b", "yes")] * 19 + [("", "no")] * 20
    )
    for row in rows:
        assert row["confidence"] == max(row["probability_a"], row["probability_b"])


def test_a_label_is_trusted_if_it_is_likelier_than_the_next():
    rows = np.array([[0.4, 0.3, 0.3], [0.38, 0.31, 0.31], [0.5, 0.5, 0.0], [0.0, 0.4, 0.6], [0, 0, 0]])
    names = ("1", "2", "3", "4", "5")
    spread = Spread(Unlabeled("more", names, names, {}), ("a", "b", "c"), rows, np.ones(3))
    assert spread.trusted.tolist() == [True, False, False, True, False]


def test_what_is_said_counts_the_images():
    spread = unreached()
    assert spread.line() == (
        "labels: 37 of 57 spread ones are trusted (1.3 times as likely as the next class, unlabeled.csv)"
    )
    told = spread.describe()
    assert (told["images"], told["trusted"], told["left_out"]) == (57, 37, {"unreadable": 2})
    first, second = told["classes"]
    assert (first["name"], first["labelled"], first["trusted"]) == ("a", 2, 18)
    assert (second["name"], second["labelled"], second["images"], second["trusted"]) == ("b", 1, 19, 19)
    assert second["confidence"] == pytest.approx(1)
    nothing = Spread(spread.unlabeled, ("a", "b"), np.full((57, 2), 0.5), np.array([1, 1]))
    assert "none of 57 spread ones is trusted" in nothing.line()
    assert "labels alone" in nothing.line()


@pytest.fixture
def labelled(tmp_path):
    """A folder with a train and a test part, its image set and its split."""
    for part in ("train", "validation", "test"):
        tiny.draw(tmp_path / "data" / part, each=2)
    rng = np.random.default_rng(1)
    for path in sorted((tmp_path / "data").rglob("*.png")):  # `draw` draws the same for each part
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype="uint8")).save(path)
    image_set = load_image_set(tmp_path / "data")
    return tmp_path, image_set, split_image_set(image_set)


def make(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def save_new(path, seed):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32), dtype="uint8")).save(make(path))


def test_copies_and_unreadable_images_are_left_out(labelled, capsys):
    """A copy has the same pixels, whatever its name or kind of file."""
    folder, image_set, split = labelled
    more = folder / "more"
    save_new(more / "new.png", 10)
    save_new(more / "deep" / "er" / "new_10.png", 11)
    save_new(more / "deep" / "er" / "new_9.png", 12)
    shutil.copy(folder / "data/test/dots/0.png", more / "renamed.png")
    Image.open(folder / "data/test/lines/1.png").convert("RGB").save(more / "deep" / "other_kind.bmp")
    shutil.copy(folder / "data/validation/plain/0.png", more / "validation.png")
    shutil.copy(folder / "data/train/plain/0.png", more / "labelled.png")
    (more / "broken.png").write_bytes(b"\x89PNG\r\n")
    (more / ".hidden.png").write_bytes(b"")
    (more / "notes.txt").write_text("no image")
    found = read_unlabeled(str(more), image_set, split)
    assert found.names == ("deep/er/new_9.png", "deep/er/new_10.png", "new.png")
    assert [path.name for path in found.images] == ["new_9.png", "new_10.png", "new.png"]
    assert found.left_out == {
        "unreadable": 1,
        "as in the validation part": 1,
        "as in the test part": 2,
        "that have a label": 1,
    }
    printed = capsys.readouterr().out
    assert printed.count("\n") == 2
    assert "skipped 2 files: 1 .txt (notes.txt), 1 hidden (.hidden.png)" in printed
    assert "broken.png: not a readable JPEG" in printed
    assert found.line() == (
        f"images without labels: 3 in {more}; left out: 1 unreadable, 1 as in the validation part, "
        "2 as in the test part, 1 that have a label"
    )


def test_copies_are_judged_as_the_run_reads_them(labelled):
    """A file that is transparent, or says that it is turned, is a copy or not by the decoding of the run."""
    folder, image_set, split = labelled
    tested = np.asarray(Image.open(folder / "data/test/dots/0.png"))
    hidden = np.dstack([np.where(tested == 0, 255, tested), np.where(tested == 0, 0, 255)])
    Image.fromarray(hidden.astype("uint8")).save(make(folder / "more" / "hidden.png"))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(folder / "data/test/dots/1.png").save(make(folder / "more" / "turned.png"), exif=turned)
    save_new(folder / "more" / "new.png", 10)
    as_shown = read_unlabeled(str(folder / "more"), image_set, split)
    assert as_shown.names == ("hidden.png", "new.png", "turned.png")
    on_black = Decoding((0,), exif_orientation=False)
    assert read_unlabeled(str(folder / "more"), image_set, split, on_black).names == ("new.png",)


def test_folders_that_cannot_be_used(labelled):
    folder, image_set, split = labelled
    (folder / "empty").mkdir()
    (folder / "scans").mkdir()
    (folder / "scans" / "a.nef").write_bytes(b"")
    (folder / "file.png").write_bytes(b"")
    shutil.copytree(folder / "data" / "test", folder / "leak")
    cases = {
        "nowhere": "is not a folder",
        "file.png": "is not a folder",
        "empty": "holds no images",
        "scans": "1 image of a kind that is not read, the first a.nef",
        "leak": "has no image to learn from (6 as in the test part)",
    }
    for name, message in cases.items():
        with pytest.raises(InputError) as caught:
            read_unlabeled(str(folder / name), image_set, split)
        assert str(caught.value).startswith(str(folder / name)), name
        assert message in str(caught.value), name


def shared_variation(each, seed):
    """Images of three classes that all vary a lot in the same five directions."""
    labels = np.arange(3 * each) % 3
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    means, directions = fixed.normal(0, 1, (3, 40)), fixed.normal(0, 2, (5, 40))
    return means[labels] + rng.normal(0, 1, (len(labels), 5)) @ directions + rng.normal(
        0, 1, (len(labels), 40)
    ), labels


def test_few_images_are_told_apart_by_what_does_not_vary_within_a_class():
    others, truth = shared_variation(300, seed=1)
    accuracy = {fit_few: [], fit_head: []}
    for seed in range(2, 7):
        rows, labels = shared_variation(5, seed)
        for fit, found in accuracy.items():
            found.append((fit(rows, labels, 3).logits(others).argmax(axis=1) == truth).mean())
    assert np.mean(accuracy[fit_few]) > np.mean(accuracy[fit_head]) + 0.03


def test_the_head_of_few_images_is_a_logistic_regression_of_whitened_features():
    from sklearn.covariance import LedoitWolf
    from sklearn.linear_model import LogisticRegression

    rows, labels = clusters(6, spread=1.0)
    std = rows.std(axis=0) + 1e-6
    means = np.array([rows[labels == label].mean(axis=0) for label in range(3)])
    covariance = LedoitWolf(assume_centered=True).fit((rows - means[labels]) / std).covariance_
    white = (rows - rows.mean(axis=0)) / std @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    expected = LogisticRegression(C=STRENGTH_OF_FEW, tol=1e-6, max_iter=1000).fit(white, labels)
    head = fit_few(rows, labels, 3)
    np.testing.assert_allclose(head.logits(rows), expected.decision_function(white), atol=0.02)


@pytest.mark.parametrize("classes", [2, 3])
def test_one_image_per_class_gives_a_head(classes):
    rows, labels = clusters(1, classes=classes)
    head = fit_few(rows, labels, classes)
    assert (head.logits(rows).argmax(axis=1) == labels).all()
    assert np.isfinite(head.kernel).all()
    assert head.kernel.shape == (6, classes)


def test_labels_of_low_confidence_hardly_move_the_head():
    rows, labels = clusters(100, spread=1.5)
    wrong = np.where(np.arange(300) < 120, (labels + 1) % 3, labels)
    weight = np.where(np.arange(300) < 120, 0.01, 1.0)
    others, truth = clusters(300, spread=1.5, seed=1)

    def accuracy(given, weight):
        return (fit_spread(rows, given, weight, 3).logits(others).argmax(axis=1) == truth).mean()

    best = accuracy(labels, np.ones(300))
    assert accuracy(wrong, weight) > best - 0.01
    assert accuracy(wrong, np.ones(300)) < best - 0.02
