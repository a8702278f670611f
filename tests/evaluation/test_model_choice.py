import re

import numpy as np
import pytest

from keras_vit.evaluation.model_choice import Answers, choose_model, judge_models

pytestmark = pytest.mark.same_on_every_backend

IMAGES, CLASSES = 600, 3
LABELS = np.arange(IMAGES) % CLASSES
COST = {"cnn": 30_000_000, "resnet": 10_000_000, "vit": 50_000_000, "defect-conv": 12_000_000, "probe": 1e9}
VITS = ("vit", "defect-conv", "probe")
TITLES = {
    "cnn": "a plain CNN",
    "resnet": "a ResNet",
    "vit": "the study's ViT",
    "defect-conv": "defect-conv",
    "probe": "the probe",
}


def answered(model, *shares, seed=0):
    """A model whose repeats are right for these shares of the images; the same images are hard for all."""
    order = np.random.default_rng(seed).permutation(IMAGES)
    named = np.stack([LABELS] * len(shares))
    for row, share in zip(named, shares, strict=True):
        wrong = order[round(share * IMAGES) :]
        row[wrong] = (LABELS[wrong] + 1) % CLASSES
    return Answers(model, named, LABELS)


CHOICES = {
    "the best is certain": ([("cnn", 0.90), ("resnet", 0.80), ("defect-conv", 0.97)], "defect-conv", True),
    "equal: the cheaper one": ([("cnn", 0.95), ("resnet", 0.95), ("defect-conv", 0.95)], "resnet", True),
    "a little better: the cheaper one": ([("vit", 0.952), ("defect-conv", 0.950)], "defect-conv", True),
    "a little better, and cheaper": ([("vit", 0.950), ("defect-conv", 0.952)], "defect-conv", True),
    "much cheaper, and certainly worse": ([("probe", 0.99), ("resnet", 0.90)], "probe", True),
    "only one model": ([("cnn", 0.9)], "cnn", True),
    "chance alone": ([("cnn", 1 / 3), ("resnet", 1 / 3)], None, False),
    "one has learned": ([("cnn", 0.6), ("resnet", 1 / 3)], "cnn", True),
}


@pytest.mark.parametrize("case", CHOICES)
def test_the_choice_at_one_number_of_images(case):
    models, wanted, certain = CHOICES[case]
    found = choose_model([answered(name, share) for name, share in models], COST)
    assert (found.model, found.is_certain) == (wanted, certain)


def test_a_better_mean_is_taken_where_chance_may_explain_it_but_not_called_certain():
    # The answers disagree at many images, so that 2 points of difference are not certain.
    found = choose_model([answered("cnn", 0.72), answered("resnet", 0.70, seed=1)], COST)
    assert (found.model, found.is_certain) == ("cnn", False)


def test_what_is_as_good_is_named():
    found = choose_model([answered("cnn", 0.95), answered("resnet", 0.95), answered("vit", 0.5)], COST)
    assert (found.model, found.as_good) == ("resnet", ("cnn",))


def test_intervals_that_overlap_may_belong_to_models_that_differ():
    """The single intervals overlap; but one model is right wherever the other is, and at more images."""
    better, worse = answered("cnn", 0.90), answered("resnet", 0.88)
    found = choose_model([better, worse], COST)
    assert (found.model, found.is_certain) == ("cnn", True)


def test_most_repeats_must_have_learned():
    assert not answered("cnn", 0.9, 1 / 3, 1 / 3).has_learned
    assert answered("cnn", 0.9, 0.9, 1 / 3).has_learned


ADVICE = {
    "a ViT pays": (
        {30: [("cnn", 0.7), ("defect-conv", 0.8)], "all": [("cnn", 0.9), ("defect-conv", 0.97)]},
        "pays",
        r"Take defect-conv \(97\.0% right, .*\) with 30 images per class to all 900 training images: a ViT "
        r"pays .*: \+7\.0 points, interval .*, for 2\.5 times fewer mult-adds\)\.",
    ),
    "a ViT does not pay": (
        {5: [("resnet", 0.7), ("vit", 0.6)], 30: [("resnet", 0.9), ("vit", 0.8)]},
        "does not pay",
        r"Take a ResNet .* with 5 to 30 images per class: a ViT does not pay .* for 5\.0 times the mult-adds",
    ),
    "it depends on the number": (
        {5: [("cnn", 0.8), ("vit", 0.6)], "all": [("cnn", 0.9), ("vit", 0.98)]},
        "pays",
        r"Take the study's ViT .* with all 900 training images and a plain CNN with 5 images per class: a",
    ),
    "a tie": (
        {"all": [("cnn", 0.95), ("defect-conv", 0.95)]},
        "same",
        r"Take defect-conv .*: a ViT and a CNN are equally accurate here .*\+0\.0 points",
    ),
    "nothing learned": (
        {"all": [("cnn", 1 / 3), ("vit", 1 / 3)]},
        "nothing learned",
        r"No model has learned anything .* always naming one class gives 33\.3%\), so check the labels",
    ),
    "only CNNs": (
        {"all": [("cnn", 0.9), ("resnet", 0.8)]},
        "one kind",
        r"Take a plain CNN \([^)]*\) with all 9",
    ),
    "the ViT learned nothing": (
        {"all": [("cnn", 0.9), ("vit", 1 / 3)]},
        "does not pay",
        r"Take a plain CNN .*: a ViT does not pay",
    ),
    "nothing learned from few": (
        {5: [("cnn", 1 / 3), ("vit", 1 / 3)], "all": [("cnn", 0.9), ("vit", 0.8)]},
        "does not pay",
        r"Take a plain CNN .* with all 900 training images: a ViT does not pay",
    ),
}


@pytest.mark.parametrize("case", ADVICE)
def test_one_sentence_follows_from_the_figures(case):
    table, verdict, wanted = ADVICE[case]
    made = {number: [answered(*model) for model in models] for number, models in table.items()}
    found = judge_models(made, COST, VITS, TITLES, {5: 15, 30: 90, "all": 900})
    assert found["verdict"] == verdict
    assert re.match(wanted, found["advice"]), found["advice"]
    assert found["advice"].endswith(".")
    assert len(re.findall(r"\. ", found["advice"])) == 0  # one sentence


def test_an_uncertain_difference_is_not_an_answer():
    table = {"all": [answered("cnn", 0.72), answered("vit", 0.70, seed=1)]}
    found = judge_models(table, COST, VITS, TITLES, {"all": 900})
    assert found["verdict"] == "uncertain"
    assert "whether a ViT pays is not certain" in found["advice"]
    low, high = found["difference"]["interval"]
    assert low < 0 < high
