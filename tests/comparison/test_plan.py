import numpy as np
import pytest

from keras_vit.comparison.plan import all_cells, limited, numbers_of

pytestmark = pytest.mark.same_on_every_backend

DEFAULT = (5, 10, 30, 100, "all")

NUMBERS = {
    "those that the data have": (DEFAULT, [240, 240, 240], DEFAULT, 0),
    "too few images": (DEFAULT, [20, 20, 20], (5, 10, "all"), 1),
    "exactly as many": (DEFAULT, [30, 30], (5, 10, "all"), 1),
    "one class has fewer": (DEFAULT, [146, 45, 160, 150], DEFAULT, 1),
    "most classes have fewer": (DEFAULT, [300, 40, 45, 50], (5, 10, 30, "all"), 1),
    "one image per class": (DEFAULT, [1, 1], ("all",), 1),
    "in the order of their size": (("all", 30, 5), [100, 100], (5, 30, "all"), 0),
    "without all": ((5, 30), [100, 100], (5, 30), 0),
    "nothing that fits": ((50,), [10, 10], ("all",), 1),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_of_images_are_those_that_the_data_have(case):
    wanted, counts, found, notes = NUMBERS[case]
    names = [f"class {i}" for i in range(len(counts))]
    assert numbers_of(wanted, np.array(counts), names)[0] == found
    assert len(numbers_of(wanted, np.array(counts), names)[1]) == notes


def test_a_class_that_has_fewer_images_is_named():
    _, notes = numbers_of(DEFAULT, np.array([146, 45, 160]), ["red iron", "oxide", "scratch"])
    assert notes == ["oxide has 45 training images, which are all used with 100 per class"]


def test_each_repeat_comes_as_a_whole_from_few_images_to_all():
    cells = all_cells(["cnn", "vit"], (5, "all"), 0, 2)
    assert [cell.file for cell in cells] == [
        *("cnn-5-0.json", "vit-5-0.json", "cnn-all-0.json", "vit-all-0.json"),
        *("cnn-5-1.json", "vit-5-1.json", "cnn-all-1.json", "vit-all-1.json"),
    ]
    assert len({cell.file for cell in all_cells(["cnn"], (5, 10), 5, 3)}) == 30


def of(cells, **models):
    """10 seconds for 5 images per class and 100 for all, times a factor per model."""
    return {cell: models[cell.model] * (100 if cell.per_class == "all" else 10) for cell in cells}


REPEAT = "repeat 2 of each training"
LIMITS = {
    "enough": (dict(cnn=1, vit=1), 441, 8, ()),
    "one repeat": (dict(cnn=1, vit=1), 220, 4, (REPEAT,)),
    "all models without what takes longest": (dict(cnn=1, vit=1), 219, 2, (REPEAT, "all")),
    "one number is left": (dict(cnn=1, vit=1), 0, 2, (REPEAT, "all")),
    "a model that takes most of the time": (dict(cnn=1, vit=5), 200, 3, (REPEAT, "vit with all")),
    "then the others": (dict(cnn=1, vit=5), 100, 2, (REPEAT, "vit with all", "cnn with all")),
    "a model alone": (dict(cnn=1), 50, 1, (REPEAT, "all")),
}


@pytest.mark.parametrize("case", LIMITS)
def test_a_limit_leaves_out_repeats_first_and_then_what_takes_longest(case):
    models, limit, kept, left_out = LIMITS[case]
    cells = all_cells(list(models), (5, "all"), 0, 2)
    plan = limited(cells, of(cells, **models), limit)
    assert (len(plan.cells), plan.left_out) == (kept, left_out)


def test_what_is_finished_takes_no_time():
    cells = all_cells(["cnn"], (5, "all"), 0, 2)
    seconds = of(cells, cnn=1) | dict.fromkeys(cells[:2], 0.0)
    assert limited(cells, seconds, 120).left_out == ()
