"""The comparison of a written file with Keras: the differences that it allows and refuses."""

import numpy as np
import pytest

from keras_vit.errors import InputError
from keras_vit.serving.formats import check

pytestmark = pytest.mark.same_on_every_backend


def answers(images):
    """Expected answers: margins of 0.1, 0.5, 0.00001 and so on; distances 0.5, 0.9999, 1.5 and so on."""
    margin = np.resize([0.1, 0.5, 1e-5], images)
    probabilities = np.stack([(0.9 + margin) / 2, (0.9 - margin) / 2, np.full(images, 0.1)], axis=1)
    return {
        "probabilities": probabilities,
        "features": np.tile(np.linspace(-4, 4, 5), (images, 1)),
        "distance": np.resize([0.5, 0.9999, 1.5, 1.2], images),
    }


def perfect(expected):
    reject = (expected["distance"] > 1).astype("int32")
    return {**{name: expected[name].copy() for name in ("probabilities", "features")}, "reject": reject}


def swap_classes(found, rows):
    rows = np.atleast_1d(rows)
    found["probabilities"][rows, :2] = found["probabilities"][rows, 1::-1]


def change_rejection(found, rows):
    rows = np.atleast_1d(rows)
    found["reject"][rows] = 1 - found["reject"][rows]


def change_value(found, name, by):
    found[name][0, 0] += by


def nothing(found):
    pass


COMPARISONS = {
    # tolerance, a change of perfect answers about 100 images, the message or None
    "the same": (check.FLOAT32, nothing, None),
    "a probability within": (check.FLOAT32, lambda found: change_value(found, "probabilities", 9e-5), None),
    "a probability beyond": (
        check.FLOAT32,
        lambda found: change_value(found, "probabilities", 1.1e-4),
        "a probability differs by 1.1e-04, 1e-04 is allowed",
    ),
    "NaN": (check.FLOAT32, lambda found: change_value(found, "probabilities", np.nan), "differs by nan"),
    "NaN in int8": (check.INT8, lambda found: change_value(found, "probabilities", np.nan), "differs by nan"),
    "a feature within": (check.FLOAT32, lambda found: change_value(found, "features", 3.9e-3), None),
    "a feature beyond": (
        check.FLOAT32,
        lambda found: change_value(found, "features", 4.1e-3),
        "a feature differs",
    ),
    "a tie": (check.FLOAT32, lambda found: swap_classes(found, 2), None),
    "rejection at the threshold": (check.FLOAT32, lambda found: change_rejection(found, 1), None),
    "rejection": (
        check.FLOAT32,
        lambda found: change_rejection(found, 0),
        "1 of 100 images are rejected by one",
    ),
    "int8: a tie": (check.INT8, lambda found: swap_classes(found, range(0, 15, 3)), None),
    "int8: too many ties": (
        check.INT8,
        lambda found: swap_classes(found, range(0, 18, 3)),
        "6 of 100 images get another",
    ),
    "int8: no tie": (
        check.INT8,
        lambda found: swap_classes(found, 1),
        "1 of 100 images get another class, 5 may",
    ),
    "int8: near the threshold": (check.INT8, lambda found: change_rejection(found, [1, 3]), None),
    "int8: far from it": (
        check.INT8,
        lambda found: change_rejection(found, 2),
        "within 25.0% of the threshold",
    ),
    "int8: too often": (
        check.INT8,
        lambda found: change_rejection(found, range(1, 13, 2)),
        "6 of 100 images are rejected",
    ),
}


def replay(found, images):
    """A file that gives these answers. Each image holds its number."""

    def answer(batch):
        numbers = batch.reshape(-1).astype(int)
        return {name: values[numbers] for name, values in found.items()}

    return answer, np.arange(images, dtype="float32").reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("case", COMPARISONS)
def test_comparison(case):
    tolerance, change, message = COMPARISONS[case]
    expected = answers(100)
    found = perfect(expected)
    change(found)
    answer, images = replay(found, 100)
    if message is None:
        measured = check.compare(expected, answer, images, tolerance, empty_batch=True)
        right = expected["probabilities"].argmax(axis=1)
        assert measured.images == 100
        assert measured.same_class == (found["probabilities"].argmax(axis=1) == right).sum()
        assert measured.same_reject == (found["reject"] == (expected["distance"] > 1)).sum()
        largest = np.abs(found["probabilities"] - expected["probabilities"]).max()
        assert measured.difference == pytest.approx(largest)
        return
    with pytest.raises(InputError, match=message) as raised:
        check.compare(expected, answer, images, tolerance, empty_batch=True)
    assert tolerance.fix in str(raised.value)


@pytest.mark.parametrize("size", [1, 2, 7, 32])
@pytest.mark.parametrize("images", [1, 5, 42, 100])
def test_a_batch_of_each_size_is_compared(size, images):
    expected = answers(images)
    answer, pixels = replay(perfect(expected), images)

    def wrong_for_one_size(batch):
        found = answer(batch)
        return {**found, "features": found["features"] + (len(batch) == size)}

    assert check.compare(expected, answer, pixels, check.FLOAT32, empty_batch=False).images == images
    with pytest.raises(InputError, match="a feature differs by 1"):
        check.compare(expected, wrong_for_one_size, pixels, check.FLOAT32, empty_batch=False)


def test_an_empty_batch_has_no_answers():
    expected = answers(50)
    answer, pixels = replay(perfect(expected), 50)

    def at_least_one_image(batch):
        return answer(batch) if len(batch) else answer(pixels[:1])

    check.compare(expected, at_least_one_image, pixels, check.FLOAT32, empty_batch=False)
    with pytest.raises(InputError, match="an empty batch gets answers"):
        check.compare(expected, at_least_one_image, pixels, check.FLOAT32, empty_batch=True)
