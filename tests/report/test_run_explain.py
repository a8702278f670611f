"""The sections of the maps, of what was learned, and of the trust in the maps."""

import numpy as np
import pytest

from keras_vit.report.run import render_report
from tests.report.pages import Page, check_accessible, check_pictures, check_self_contained
from tests.report.test_run import run

pytestmark = pytest.mark.same_on_every_backend


def looks(name, true, predicted):
    rng = np.random.default_rng(0)
    strip = rng.integers(0, 255, (96, 296, 3)).astype("uint8")
    return {"name": name, "true": true, "predicted": predicted, "confidence": 0.9, "strip": strip}


def explained(deletion=0.2, **changes):
    def curve(area):
        return {
            "shares": [0, 0.5, 1],
            "by_map": [1, area, 0],
            "by_chance": [1, 0.5, 0],
            "area": area,
            "area_by_chance": 0.5,
        }

    found = {
        "wrong": [looks("wrong.png", 0, 1)],
        "right": [looks("right.png", 2, 2)],
        "right_left_out": 3,
        "right_missing": ["crazing"],
        "tried": 4,
        "positions": np.random.default_rng(0).random((2, 3, 2, 3)),
        "filters_kind": "filters of the first convolution",
        "filters": np.random.default_rng(0).random((9, 3, 3, 3)),
        "distances": [[3.0, 4.0], [10.0, 20.0]],
        "distance_images": 8,
        "longest": 14.0,
        "trust": {
            "images": 10,
            "orders": 10,
            "deletion": curve(deletion),
            "insertion": curve(0.7),
            "randomised": [("head", 0.9), ("block_0", 0.4), ("embedding", 0.01)],
        },
    }
    return {**found, **changes}


def page_of(**given):
    return Page(render_report(**run(), explained=explained(**given)))


def test_the_sections_are_whole():
    page, without = page_of(), Page(render_report(**run()))
    check_self_contained(page)
    check_accessible(page)
    check_pictures(page)
    assert len(page.all("img")) == len(without.all("img")) + 2 + 3 + 3
    assert "patches (90.0 %)" in page.text
    assert "None of the first 4 test images is right in: crazing." in page.text
    assert "3 more classes are not shown." in page.text
    alternatives = [image["alt"] for image in page.all("img")]
    assert (
        "Mean attention distance per head and block: from 4 pixels in the first block to 15 in the last"
        in (alternatives)
    )
    assert "Deletion curve: area 0.200 by the map, 0.500 in random order" in alternatives
    assert "What the model looks at" not in without.text


@pytest.mark.parametrize(
    ("area", "sentence"),
    [
        (0.2, "0.400 of that of random orders: the patches that the map shows count more than others."),
        (0.5, "count no more than others, so do not read the maps as reasons."),
        (0.6, "count less than others, so do not read the maps as reasons."),
    ],
)
def test_the_verdict_follows_the_deletion_curve(area, sentence):
    assert sentence in page_of(deletion=area).text


def test_a_large_model_has_a_command_in_place_of_curves():
    page = page_of(trust=None)
    assert "keras-vit explain RUN --trust --out DIR" in page.text
    assert len(page.all("img")) == len(page_of().all("img")) - 3


def test_nothing_to_show_leaves_no_heading():
    page = page_of(wrong=[], right=[], right_missing=[], right_left_out=0)
    assert "One right image per class" not in page.text
    assert "more classes are not shown" not in page.text
    check_accessible(page)
