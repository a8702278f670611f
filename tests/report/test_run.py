"""The page of a run shows what it should, for any run. It loads and runs nothing, and escapes its inputs."""

import contextlib
import copy
import re
import subprocess
import sys

import numpy as np
import pytest

from keras_vit.evaluation import judge
from keras_vit.report import findings, run_plots
from keras_vit.report.kit import BLUE, ORANGE, percent
from keras_vit.report.run import cell_style, render_report
from tests.report.pages import (
    EVIL,
    Page,
    check_accessible,
    check_escaped,
    check_pictures,
    check_self_contained,
    everywhere,
    without_plots,
)

pytestmark = pytest.mark.same_on_every_backend

NEU = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")


def run(class_names=NEU, *, images=120, validation=60, epochs=30, all_right=False, side=28, channels=1):
    """The arguments of `render_report` for a made-up run."""
    rng = np.random.default_rng(0)
    classes = len(class_names)

    def scores(labels):
        logits = rng.normal(0, 1.5, (len(labels), classes))
        logits[np.arange(len(labels)), labels] += 100 if all_right else rng.normal(3, 1.5, len(labels))
        return logits

    labels, validation_labels = np.arange(images) % classes, np.arange(validation) % classes
    metrics = judge(
        class_names=class_names,
        test_labels=labels,
        test_names=[f"folder/image_{i}.jpg" for i in range(images)],
        test_logits_best=scores(labels),
        test_logits_last=scores(labels),
        validation_labels=validation_labels,
        validation_logits_best=scores(validation_labels),
        best_epoch=max(1, epochs - 3),
        last_epoch=max(1, epochs),
    )
    history = {key: list(rng.random(epochs)) for key in ("accuracy", "loss", "learning_rate")}
    if validation:
        history |= {key: list(rng.random(epochs)) for key in ("val_accuracy", "val_loss")}
    return {
        "config": {
            "model": "defect/4",
            "model_config": {"patch_size": 4, "dim": 64},
            "image_shape": [28, 28, 1],
            "data": {
                "source": "photos/steel",
                "class_names": list(class_names),
                "counts": {"train": 1296, "validation": validation, "test": images},
            },
            "recipe": {"learning_rate": 1e-3, "ema": None, "augmentation": {"flip": True, "mixup": 0.2}},
            "seed": 1234,
            "backend": "tensorflow",
            "versions": {"keras_vit": "0.1.0", "keras": "3.15.0"},
            "device": "CPU",
            "seconds": 312.4,
            "command": "keras-vit train --data photos/steel --seed 1234",
        },
        "metrics": metrics,
        "history": history,
        "layer_table": {
            "rows": [
                {
                    "name": "patch_embed",
                    "type": "PatchEmbed",
                    "output_shape": (None, 49, 64),
                    "parameters": 1088,
                    "mult_adds": 50176,
                },
                {
                    "name": "head",
                    "type": "Dense",
                    "output_shape": (None, 6),
                    "parameters": 774,
                    "mult_adds": None,
                    "depth": 2,
                },
            ],
            "totals": {"parameters": 508166, "mult_adds": 32320000, "batch_size": 64},
        },
        "audit": {
            "images": 1800,
            "unreadable": [],
            "exact_duplicates": [["patches/a.jpg", "patches/b.jpg"]],
            "classes": {"pitted_surface": {"all": 300, "train": 240}, "scratches": {"all": 299}},
            "sizes": {"200 x 200": 1800},
            "imbalance": None,
            "across_split": [{"train": "c.jpg", "test": f"d{i}.jpg"} for i in range(25)],
        },
        "mistake_images": [
            np.full((side, side + 5, channels), i, dtype=np.uint8) for i, _ in enumerate(metrics["mistakes"])
        ],
    }


RUNS = {
    "six classes": {},
    "two classes": {"class_names": ("ok", "defect")},
    "a hundred classes": {"class_names": [f"kind_{i}" for i in range(100)], "images": 200},
    "no validation": {"validation": 0},
    "no mistakes": {"all_right": True},
    "one epoch": {"epochs": 1},
    "no history": {"epochs": 0},
    "large colour pictures": {"side": 600, "channels": 3},
    "names in any form": {
        "class_names": (
            "long " * 40,
            "W" * 200,
            "<script>alert(1)</script>",
            "$x_1$ & 50%",
            "划痕",
            "{{ 7*7 }}",
        )
    },
}


@pytest.fixture(scope="module", params=RUNS.values(), ids=RUNS.keys())
def rendered(request):
    given = run(**request.param)
    return given, Page(render_report(**given))


def test_the_page_is_self_contained_and_accessible(rendered):
    given, page = rendered
    check_self_contained(page)
    check_accessible(page)
    assert check_pictures(page) == len(given["mistake_images"])


def test_every_class_is_named_with_its_numbers(rendered):
    given, page = rendered
    for i, row in enumerate(given["metrics"]["best"]["per_class"], start=1):
        name = re.sub(r"\s+", " ", f"{i} {row['name']}")
        assert name.strip() in page.text
        assert percent(row["f1"]) in "".join(page.texts)


def test_both_accuracies_and_their_ranges_are_shown(rendered):
    given, page = rendered
    for weights in ("best", "last"):
        result = given["metrics"][weights]
        low, high = result["accuracy_interval"]
        text = "".join(page.texts)
        assert f"({result['epoch']})" in text
        assert percent(result["accuracy"]) in text
        assert f"between {percent(low)} and {percent(high)}" in text
        assert f"{result['correct']} of {result['images']} test images" in text


def page_of(changes=lambda given: None, plots=False, **kind):
    """The page of a changed run. Plots take most of the time, so tests of the text leave them out."""
    given = copy.deepcopy(run(**kind))
    changes(given)
    with contextlib.nullcontext() if plots else without_plots(run_plots):
        return Page(render_report(**given))


@pytest.fixture(scope="module")
def usual():
    return page_of(plots=True)


def test_the_settings_are_shown(usual):
    text = usual.text
    for shown in (
        "defect/4",
        "28 \u00d7 28 \u00d7 1",
        "photos/steel",
        "train 1,296, validation 60, test 120",
        "Recipe, augmentation",
        "0.001",
        "1234",
        "tensorflow",
        "3.15.0",
        "5 min 12 s",
        "keras-vit train --data photos/steel --seed 1234",
        "PatchEmbed",
        "49 \u00d7 64",
        "508,166",
        "32.32 M mult-adds for a batch of 64",
        "pitted_surface: 300 (train 240)",
        "200 x 200: 1800",
        "train: c.jpg, test: d9.jpg",
        "patches/a.jpg = patches/b.jpg",
        "and 15 more",
        "equal images",
        "most frequent sizes",
    ):
        assert shown in text.replace("\u00a0", " "), shown


@pytest.mark.parametrize(
    ("kind", "shown", "not_shown"),
    [
        ({}, "best epoch by validation", "There is no validation part"),
        ({"validation": 0}, "There is no validation part", "by validation"),
        ({"all_right": True}, "every test image is classified right", "predicted as"),
        ({"epochs": 0}, "The history is empty", "<img"),
    ],
)
def test_the_text_follows_the_run(kind, shown, not_shown):
    text = page_of(**kind).text
    assert shown in text
    assert not_shown not in text


@pytest.mark.parametrize("validation", [0, 60])
def test_calibration_is_shown_before_and_after_if_it_was_fitted(validation):
    given, page = run(validation=validation), page_of(validation=validation)
    text, calibration = "".join(page.texts), given["metrics"]["calibration"]
    assert percent(calibration["ece_before"]) in text
    assert ("The temperature stays at 1. The reason: there is no validation part." in text) == (
        validation == 0
    )
    after = f"{percent(calibration['ece_after'])} with the logits divided by the temperature"
    assert (after in text) == (validation > 0)
    assert sum(image["alt"].startswith("Reliability") for image in page.all("img")) == 1 + (validation > 0)


RATES = [
    {"name": "validation", "images": 144, "rejected": 6, "share": 6 / 144, "interval": [0.019, 0.088]},
    {"name": "test", "images": 360, "rejected": 0, "share": 0.0, "interval": [0.0, 0.011]},
    {"name": "drawn defects", "images": 0, "rejected": 0, "share": None, "interval": None},
    {"name": "<noise>", "images": 1060, "rejected": 1060, "share": 1.0, "interval": [0.99, 1.0]},
]
REJECTION = {
    "method": "Mahalanobis distance to the nearest class centre",
    "threshold": 21.6259,
    "share_allowed": 0.05,
    "fitted_on": "validation",
    "training_images": 1296,
    "validation_images": 144,
    "rates": [{**row, "left_out": None if row["images"] else "the run was trained on them"} for row in RATES],
}


def test_rejection_rates_are_shown_with_their_counts():
    page = page_of(lambda given: given["metrics"].update(rejection=REJECTION))
    text = page.text.replace("\u00a0", " ")
    for shown in (
        "The threshold, 21.626, follows from the 144 validation images alone",
        "on average over such validation parts, at most 5.0 % of images like them are rejected",
        "1.9 points more or less",
        "validation4.2 %1.9 % to 8.8 %144",
        "test0.0 %0.0 % to 1.1 %360",
        "drawn defectsleft out: the run was trained on them",
        "<noise>100.0 %99.0 % to 100.0 %1,060",
    ):
        assert shown in text, shown
    assert "#rejection" in {link["href"] for link in page.all("a")}


@pytest.mark.parametrize(
    ("rejection", "shown"),
    [
        (None, ""),
        (
            {
                **REJECTION,
                "threshold": None,
                "rates": [],
                "fitted_on": "nothing: there is no validation part",
            },
            "This model rejects no images, only files that cannot be read. The reason: there is no "
            "validation part.",
        ),
    ],
    ids=["an earlier version", "not fitted"],
)
def test_the_reason_is_shown_if_nothing_is_rejected(rejection, shown):
    page = page_of(lambda given: given["metrics"].update(rejection=rejection))
    assert shown in page.text
    assert ("Out-of-distribution images" in page.text) == (rejection is not None)
    assert "95 % interval" not in page.text


@pytest.mark.parametrize("missing", ["layer_table", "audit"])
def test_sections_without_content_are_omitted(missing, usual):
    section = {"layer_table": "layers", "audit": "data"}[missing]
    ids = lambda page: {attributes.get("id") for attributes in page.all("section")}  # noqa: E731
    assert section in ids(usual)
    without = page_of(lambda given: given.update({missing: None}))
    assert section not in ids(without)
    assert f"#{section}" not in {link["href"] for link in without.all("a")}


def test_the_matrix_of_many_classes_is_a_picture():
    few, many = page_of(class_names=range(20)), page_of(class_names=range(21))
    is_map = lambda page: any("heat map" in image["alt"] for image in page.all("img"))  # noqa: E731
    is_table = lambda page: any("matrix" in table.get("class", "") for table in page.all("table"))  # noqa: E731
    assert (is_map(few), is_table(few)) == (False, True)
    assert (is_map(many), is_table(many)) == (True, False)


def test_everything_given_is_escaped(usual):
    given = run()
    for key in ("config", "layer_table", "audit"):
        given[key] = everywhere(given[key])
    given["config"]["recipe"][EVIL] = 1
    given["audit"]["classes"][EVIL] = {EVIL: 1}
    given["metrics"]["class_names"] = everywhere(given["metrics"]["class_names"])
    for row in given["metrics"]["best"]["per_class"] + given["metrics"]["mistakes"]:
        row["name"] += EVIL
    check_escaped(Page(render_report(**given)), pictures=len(usual.all("img")), mentions=60)


def test_the_config_may_hold_more_or_less():
    def changes(given):
        data = given["config"]["data"]
        given["config"] = {"model": "B/16", "data": data, "precision": "bfloat16", "resumed": [3, 7]}
        given["config"]["train"] = {"seed": "shown once"}

    text = page_of(changes).text
    assert "precisionbfloat16" in text.replace(" ", "")
    assert "3, 7" in text
    assert "Versions" not in text
    assert "shown once" not in text


@pytest.mark.parametrize(
    "values", [[float("nan")] * 3, [1.0, float("nan"), 2.0], [float("inf"), 1, 2], [None, 1, 2]]
)
def test_a_history_with_gaps_is_drawn(values):
    history = {"loss": values, "val_loss": values, "accuracy": values}
    page = page_of(lambda given: given.update(history=history), plots=True)
    assert sum("by epoch" in image["alt"] for image in page.all("img")) == 2


def test_the_accuracy_may_have_a_longer_name():
    keys = {"sparse_categorical_accuracy": [0.5], "val_sparse_categorical_accuracy": [0.25]}
    page = page_of(lambda given: given.update(history=keys))
    (alt,) = [image["alt"] for image in page.all("img") if "by epoch" in image["alt"]]
    assert alt.startswith("Accuracy by epoch: train from 0.500")
    assert "validation from 0.250" in alt


def test_the_same_run_gives_the_same_page(usual):
    assert render_report(**run()) == usual.source


def test_there_must_be_one_picture_per_mistake():
    given = run()
    given["mistake_images"].pop()
    with pytest.raises(ValueError, match=r"one per mistake, 12\. Received: 11"):
        render_report(**given)


def test_importing_evaluation_and_report_imports_nothing_heavy():
    heavy = {"keras", "tensorflow", "sklearn", "scipy", "matplotlib", "jinja2"}
    modules = "keras_vit.evaluation, keras_vit.report.run, keras_vit.report.search"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


# Parts of the page


@pytest.mark.parametrize("colour", [BLUE, ORANGE])
@pytest.mark.parametrize("share", [0, *np.linspace(0.001, 1, 101)])
def test_every_cell_can_be_read(colour, share):
    """Contrast of 4.5 to 1, as the Web Content Accessibility Guidelines ask of text."""
    style = dict(part.split(": ") for part in cell_style(colour, share).split("; "))
    background = re.findall(r"\d+", style.get("background", "rgb(255, 255, 255)"))
    text = style["color"].removeprefix("#")
    text = text if len(text) == 6 else "".join(2 * digit for digit in text)
    dark, light = sorted(
        0.2126 * red + 0.7152 * green + 0.0722 * blue
        for red, green, blue in (
            [channel(int(c)) for c in background],
            [channel(int(text[i : i + 2], 16)) for i in (0, 2, 4)],
        )
    )
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def channel(value):
    return value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, ["3"]),
        ([], ["none"]),
        (["a", "b"], ["a, b"]),
        ([["a", "b"], ["c", "d"]], ["a = b", "c = d"]),
        ([{"name": "a"}], ["name: a"]),
        ([{"name": "a.png", "reason": "empty"}], ["a.png: empty"]),
        ({"a": 1, "b": 2}, ["a: 1, b: 2"]),
        ({"min": 40, "median": 41.5, "max": 44}, ["40 to 44, median 41.5"]),
        ({"a": {"all": 1}, "b": {}}, ["a: 1", "b: none"]),
        ({"a": {"all": 3, "train": 2, "test": 1}}, ["a: 3 (train 2, test 1)"]),
    ],
)
def test_lines(value, expected):
    assert findings.lines(value) == expected


@pytest.mark.parametrize(
    ("pair", "line"),
    [
        (
            {"first": "a.jpg", "second": "b.jpg", "likeness": 0.9779, "exact": False, "first_part": "train"}
            | {"second_part": "test"},
            "a.jpg (train) ~ b.jpg (test), 0.98",
        ),
        (
            {"first": "a.jpg", "second": "b.jpg", "likeness": 1.0, "exact": True, "first_part": None}
            | {"second_part": None},
            "a.jpg = b.jpg",
        ),
    ],
)
def test_pairs_of_the_audit_are_one_short_line(pair, line):
    assert findings.lines([pair]) == [line]
