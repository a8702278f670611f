"""The page holds what it should, for any run; it fetches and runs nothing, and escapes what it was given."""

import base64
import copy
import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from keras_vit.evaluation import judge
from keras_vit.report import run as report
from keras_vit.report.run import render_report
from tests.helpers.html_page import Page

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
            rng.integers(0, 256, (side, side + 5, channels), dtype=np.uint8) for _ in metrics["mistakes"]
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
    source = render_report(**given)
    return given, source, Page(source)


def test_nothing_is_fetched_and_nothing_runs(rendered):
    _, source, page = rendered
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "srcset", "action", "poster"):
            assert re.match("data:|#", attributes.get(name) or "#"), (tag, attributes[name][:80])
    assert not re.search(r"https?://", source)
    assert not re.search(r"url\(|@import", source)


def test_every_class_is_named_with_its_numbers(rendered):
    given, _, page = rendered
    for i, row in enumerate(given["metrics"]["best"]["per_class"], start=1):
        name = re.sub(r"\s+", " ", f"{i} {row['name']}")
        assert name.strip() in page.text
        assert report.percent(row["f1"]) in "".join(page.texts)


def test_both_accuracies_and_their_ranges_are_told(rendered):
    given, _, page = rendered
    for which in ("best", "last"):
        judged = given["metrics"][which]
        low, high = judged["accuracy_interval"]
        text = "".join(page.texts)
        assert f"({judged['epoch']})" in text
        assert report.percent(judged["accuracy"]) in text
        assert f"between {report.percent(low)} and {report.percent(high)}" in text
        assert f"{judged['correct']} of {judged['images']} test images" in text


def test_pictures_have_words_and_tables_have_headers(rendered):
    _, _, page = rendered
    assert all(image["alt"].strip() for image in page.all("img"))
    assert {cell.get("scope") for cell in page.all("th")} == {"row", "col"}
    assert page.all("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.all("a")} <= set(ids)


def test_pictures_can_be_decoded(rendered):
    given, _, page = rendered
    kinds = []
    for image in page.all("img"):
        kind, content = re.fullmatch(r"data:image/(png|svg\+xml);base64,(.*)", image["src"]).groups()
        content = base64.b64decode(content, validate=True)
        kinds.append(kind)
        if kind == "png":
            Image.open(io.BytesIO(content)).load()
        else:
            svg = ElementTree.fromstring(content)
            # matplotlib names its version there, and the vocabulary of that, but draws nothing from outside.
            links = [value for node in svg.iter() for name, value in node.attrib.items() if "href" in name]
            assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert kinds.count("png") == len(given["mistake_images"])


def page_of(changes=lambda given: None, **kind):
    given = copy.deepcopy(run(**kind))
    changes(given)
    return Page(render_report(**given))


def test_what_was_run_is_told():
    text = page_of().text
    for told in (
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
        "pitted_surface (all: 300, train: 240)",
        "200 x 200: 1800",
        "train: c.jpg, test: d9.jpg",
        "patches/a.jpg, patches/b.jpg",
        "and 15 more",
        "exact duplicates",
    ):
        assert told in text.replace("\u00a0", " "), told


@pytest.mark.parametrize(
    ("kind", "told", "not_told"),
    [
        ({}, "best epoch by validation", "There is no validation part"),
        ({"validation": 0}, "There is no validation part", "by validation"),
        ({"all_right": True}, "every test image is classified right", "taken for"),
        ({"epochs": 0}, "The history is empty", "<img"),
    ],
)
def test_words_follow_the_run(kind, told, not_told):
    text = page_of(**kind).text
    assert told in text
    assert not_told not in text


@pytest.mark.parametrize("validation", [0, 60])
def test_calibration_is_told_before_and_after_where_it_was_fitted(validation):
    given = run(validation=validation)
    page = Page(render_report(**given))
    text, calibration = "".join(page.texts), given["metrics"]["calibration"]
    assert report.percent(calibration["ece_before"]) in text
    after = f"{report.percent(calibration['ece_after'])} with the logits divided by the temperature"
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


def test_what_is_rejected_is_told_with_its_counts():
    page = page_of(lambda given: given["metrics"].update(rejection=REJECTION))
    text = page.text.replace("\u00a0", " ")
    for told in (
        "the threshold, 21.626, follows from the 144 validation images alone",
        "5.0 % at most are rejected on average",
        "1.9 points more or less",
        "validation4.2 %1.9 % to 8.8 %144",
        "test0.0 %0.0 % to 1.1 %360",
        "drawn defectsleft out: the run was trained on them",
        "<noise>100.0 %99.0 % to 100.0 %1,060",
    ):
        assert told in text, told
    assert "#rejection" in {link["href"] for link in page.all("a")}


@pytest.mark.parametrize(
    ("rejection", "told"),
    [
        (None, ""),
        (
            {
                **REJECTION,
                "threshold": None,
                "rates": [],
                "fitted_on": "nothing: there is no validation part",
            },
            "No picture is rejected by this model, only files that cannot be read. The threshold was "
            "fitted on nothing: there is no validation part.",
        ),
    ],
    ids=["an earlier version", "not fitted"],
)
def test_what_is_told_where_nothing_is_rejected(rejection, told):
    page = page_of(lambda given: given["metrics"].update(rejection=rejection))
    assert told in page.text
    assert ("Unlike the training images" in page.text) == (rejection is not None)
    assert "95 % interval" not in page.text


@pytest.mark.parametrize("gone", ["layer_table", "audit"])
def test_sections_without_content_are_left_out(gone):
    section = {"layer_table": "layers", "audit": "data"}[gone]
    ids = lambda page: {attributes.get("id") for attributes in page.all("section")}  # noqa: E731
    assert section in ids(page_of())
    without = page_of(lambda given: given.update({gone: None}))
    assert section not in ids(without)
    assert f"#{section}" not in {link["href"] for link in without.all("a")}


def test_the_matrix_of_many_classes_is_a_picture():
    few, many = page_of(class_names=range(20)), page_of(class_names=range(21))
    is_map = lambda page: any("heat map" in image["alt"] for image in page.all("img"))  # noqa: E731
    is_table = lambda page: any("matrix" in table.get("class", "") for table in page.all("table"))  # noqa: E731
    assert (is_map(few), is_table(few)) == (False, True)
    assert (is_map(many), is_table(many)) == (True, False)


EVIL = "<img src=x onerror=alert(1)>'\"&{{ 7*7 }}"


def everywhere(value):
    """The same structure with EVIL after every text."""
    if isinstance(value, dict):
        return {k: everywhere(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [everywhere(v) for v in value]
    return value + EVIL if isinstance(value, str) else value


def test_everything_given_is_escaped():
    given = run()
    clean = Page(render_report(**given))
    for key in ("config", "layer_table", "audit"):
        given[key] = everywhere(given[key])
    given["config"]["recipe"][EVIL] = 1
    given["audit"]["classes"][EVIL] = {EVIL: 1}
    given["metrics"]["class_names"] = everywhere(given["metrics"]["class_names"])
    for row in given["metrics"]["best"]["per_class"] + given["metrics"]["mistakes"]:
        row["name"] += EVIL
    source = render_report(**given)
    page = Page(source)
    assert "<img src=x" not in source
    assert [a for a in page.all("img") if "onerror" in a] == []
    assert len(page.all("img")) == len(clean.all("img"))
    assert page.text.count(EVIL) > 60


def test_the_config_may_hold_more_or_less():
    def changes(given):
        data = given["config"]["data"]
        given["config"] = {"model": "B/16", "data": data, "precision": "bfloat16", "resumed": [3, 7]}
        given["config"]["train"] = {"seed": "told once"}

    text = page_of(changes).text
    assert "precisionbfloat16" in text.replace(" ", "")
    assert "3, 7" in text
    assert "Versions" not in text
    assert "told once" not in text


@pytest.mark.parametrize(
    "values", [[float("nan")] * 3, [1.0, float("nan"), 2.0], [float("inf"), 1, 2], [None, 1, 2]]
)
def test_a_history_with_holes_is_drawn(values):
    page = page_of(
        lambda given: given.update(history={"loss": values, "val_loss": values, "accuracy": values})
    )
    assert sum("by epoch" in image["alt"] for image in page.all("img")) == 2


def test_the_accuracy_may_have_a_longer_name():
    keys = {"sparse_categorical_accuracy": [0.5], "val_sparse_categorical_accuracy": [0.25]}
    page = page_of(lambda given: given.update(history=keys))
    (alt,) = [image["alt"] for image in page.all("img") if "by epoch" in image["alt"]]
    assert alt.startswith("Accuracy by epoch: train from 0.500")
    assert "validation from 0.250" in alt


def test_the_same_run_gives_the_same_page():
    assert render_report(**run()) == render_report(**run())


def test_there_must_be_one_picture_a_mistake():
    given = run()
    given["mistake_images"].pop()
    with pytest.raises(ValueError, match=r"one a mistake, 12\. Received: 11"):
        render_report(**given)


def test_importing_the_room_imports_nothing_heavy():
    heavy = {"keras", "tensorflow", "sklearn", "matplotlib", "jinja2"}
    code = f"import sys, keras_vit.evaluation; print(sorted({heavy} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"
