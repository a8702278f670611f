"""The sections of a run that began with published weights."""

import pytest

from tests.report.pages import EVIL, check_accessible, check_escaped
from tests.report.test_run import page_of

pytestmark = pytest.mark.same_on_every_backend

WEIGHTS = {
    "source": "timm:vit_tiny_patch16_224",
    "family": "timm",
    "revision": "abc123",
    "sha256": "f" * 64,
    "licence": "apache-2.0",
    "mean": [0.5, 0.25, 0.5],
    "std": [0.5],
    "interpolation": "bicubic",
    "image_shape": [224, 224, 3],
    "told_by": {"num_heads": "the table", "mean": "you"},
    "unused": ["head.weight", "head.bias"],
    "notes": ["the positions were resized"],
}
PROBE = {
    "strength": 0.02,
    "grid": [
        {"strength": 0.002, "log_loss": 0.25, "accuracy": 0.9, "temperature": 0.4},
        {"strength": 0.02, "log_loss": 0.125, "accuracy": 0.95, "temperature": 0.8},
    ],
    "judged_on": "5 folds of the 1440 training images",
    "width": 384,
    "computed": 1000,
    "from_cache": 800,
    "feature_seconds": 12.5,
    "fit_seconds": 1.5,
    "fitted_to": 1440,
}
UNLABELED = {
    "folder": "photos/more",
    "images": 1410,
    "trusted": 1390,
    "trusted_from": 1.3,
    "left_out": {"unreadable": 2, "as in the test part": 0},
    "neighbours": 10,
    "alpha": 0.98,
    "classes": [
        {"name": "crazing", "labelled": 5, "images": 711, "trusted": 704, "confidence": 0.875},
        {"name": "patches", "labelled": 5, "images": 699, "trusted": 686, "confidence": 0.9},
        {"name": "scratches", "labelled": 5, "images": 0, "trusted": 0, "confidence": None},
    ],
}


def page(weights=None, **metrics):
    def change(given):
        given["metrics"] |= metrics
        if weights:
            given["config"]["weights"] = weights

    return page_of(change)


def test_a_run_from_scratch_has_none_of_the_sections():
    source = page().source
    for name in ("head", "unlabeled", "weights"):
        assert f'id="{name}"' not in source
        assert f'href="#{name}"' not in source


def test_every_section_is_linked_and_accessible():
    found = page(WEIGHTS, probe=PROBE, unlabeled=UNLABELED)
    check_accessible(found)
    for name in ("head", "unlabeled", "weights"):
        assert f'id="{name}"' in found.source
        assert f'href="#{name}"' in found.source


def test_the_published_weights_are_described():
    text = page(WEIGHTS).text
    for words in (
        "timm:vit_tiny_patch16_224",
        "abc123",
        "f" * 64,
        "apache-2.0",
        "0.5, 0.25, 0.5",
        "bicubic",
        "224 \u00d7 224 \u00d7 3",
        "the table: num_heads; you: mean",
        "head.weight, head.bias",
        "the positions were resized",
    ):
        assert words in text, words


def test_what_is_not_known_of_the_weights_is_said_or_left_out():
    bare = {**WEIGHTS, "licence": None, "revision": None, "told_by": {}, "unused": [], "notes": []}
    text = page(bare).text
    assert "not stated in the file" in text
    assert "everything by the tensors" in text
    assert "revision" not in text
    assert "unused" not in text


def test_the_grid_of_strengths_is_a_table():
    text = page(probe=PROBE).text
    assert "on 5 folds of the 1440 training images" in text
    assert "0.02 (chosen)" in text
    assert "0.002 (chosen)" not in text
    assert "Features of 1,000 images were computed and those of 800 came from the cache" in text


def test_a_strength_that_was_not_chosen_has_a_reason():
    few = {**PROBE, "grid": [], "judged_on": "nothing: there are fewer than 20 images per class"}
    text = page(probe=few).text
    assert "No images chose it. The reason: there are fewer than 20 images per class." in text
    assert "(chosen)" not in text


def test_the_trusted_labels_are_counted_by_class():
    text = page(probe=PROBE, unlabeled=UNLABELED).text
    assert "1,390 of 1,410 images got a label that is trusted" in text
    assert "at least 1.3 times as likely as the next class" in text
    assert "Left out: 2 unreadable." in text
    assert "test part" not in text.split("Images without labels")[-1].split("Learning curves")[0]
    for words in ("704", "686", "87.5"):
        assert words in text, words


def test_a_run_that_trusted_nothing_says_so():
    text = page(unlabeled={**UNLABELED, "trusted": 0}).text
    assert "0 of 1,410 images got a label" in text
    assert "fitted to the labelled images alone" in text


def test_texts_from_outside_are_escaped():
    classes = [{**row, "name": EVIL} for row in UNLABELED["classes"]]
    weights = {**WEIGHTS, "source": EVIL, "notes": [EVIL], "licence": EVIL}
    probe = {**PROBE, "judged_on": EVIL}
    found = page(weights, probe=probe, unlabeled={**UNLABELED, "classes": classes})
    check_escaped(found, pictures=len(page(probe=PROBE).all("img")), mentions=6)
