"""The page of a search shows what it should. It loads and runs nothing, and escapes its inputs."""

import contextlib
import dataclasses
import math
import re

import pytest

from keras_vit.evaluation import search_analysis as analysis
from keras_vit.evaluation.metrics import wilson_interval
from keras_vit.evaluation.search_analysis import Effect
from keras_vit.evaluation.trials import best_trial
from keras_vit.report import search as report
from keras_vit.report import search_plots
from keras_vit.report.kit import UNKNOWN, duration, percent
from keras_vit.report.search import render_search_report
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
from tests.search import synthetic

pytestmark = pytest.mark.same_on_every_backend

FINAL = {
    "accuracy": 350 / 360,
    "accuracy_interval": list(wilson_interval(350, 360)),
    "correct": 350,
    "images": 360,
    "epochs": 9,
    "trained_on": "train + validation",
    "run": "best",
}


def changed(record, **changes):
    return dataclasses.replace(record, trials=[dataclasses.replace(t, **changes) for t in record.trials])


def with_config(record, **config):
    return dataclasses.replace(record, config={**record.config, **config})


def first(record, number):
    return dataclasses.replace(record, trials=record.trials[:number])


SEARCH = synthetic.search()
FAILED = changed(SEARCH, status="FAILED", score=None, seconds=None, error="The loss is NaN.")
CASES = {
    "a whole one": SEARCH,
    "none started": first(SEARCH, 0),
    "none done": changed(SEARCH, status="RUNNING", score=None, seconds=None),
    "one trial": first(SEARCH, 1),
    "two trials": first(SEARCH, 2),
    "only failed ones": FAILED,
    "some failed": dataclasses.replace(SEARCH, trials=[*FAILED.trials[:3], *SEARCH.trials[3:]]),
    "one hyperparameter": synthetic.search(searched=["learning_rate"]),
    "one choice": synthetic.search(searched=["stem"]),
    "none searched": synthetic.search(searched=[]),
    "all equal": changed(SEARCH, score=0.5),
    "all right": changed(SEARCH, score=1.0),
    "all wrong": changed(SEARCH, score=0.0),
    "NaN accuracies": changed(SEARCH, score=math.nan),
    "costs not known": changed(SEARCH, seconds=None, parameters=None, mult_adds=None),
    "costs not numbers": changed(SEARCH, seconds=math.nan, parameters=0, mult_adds=None),
    "values not known": changed(SEARCH, values=dict.fromkeys(synthetic.FIELDS)),
    "no values": changed(SEARCH, values={}),
    "nothing but the names": dataclasses.replace(SEARCH, config={"searched": synthetic.SEARCHED}),
    "200 trials": synthetic.search(sizes=((81, 27, 9, 3, 1), (34, 12, 4, 2), (15, 5, 2), (8, 3), (5,))),
}


@pytest.fixture(scope="module")
def small_forest():
    """A small forest: its results are tested in `test_search_analysis`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "TREES", 10)
        patch.setattr(analysis, "SHUFFLES", 2)
        yield


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def rendered(request, small_forest):
    return request.param, Page(render_search_report(request.param, final=None))


def test_the_page_is_self_contained_and_accessible(rendered):
    _, page = rendered
    check_self_contained(page)
    check_accessible(page)
    assert check_pictures(page) == 0


def test_every_trial_is_in_the_table(rendered):
    record, page = rendered
    for trial in record.trials:
        assert trial.trial_id in page.texts
        assert (trial.error or "") in page.text
    assert page.text.replace("\u00a0", " ").count("MLP ratio") == 0


def test_no_number_is_shown_as_a_python_value(rendered):
    assert not re.search(r"\b(nan|None|inf|Markup|object at)\b", rendered[1].text)


def test_the_best_is_on_top(rendered):
    record, page = rendered
    done = [t for t in record.trials if t.status == "COMPLETED" and not math.isnan(t.score)]
    if not done:
        assert "No trial is done yet" in page.text
        assert "keras-vit train" not in page.text
        return
    top = max(t.score for t in done)
    text = "".join(page.texts)
    assert percent(top) in text
    assert "keras-vit train --config best.json" in text
    if "validation_images" in record.config:
        low, high = wilson_interval(round(top * synthetic.IMAGES), synthetic.IMAGES)
        assert f"between {percent(low)} and {percent(high)}" in text
        assert f"{round(top * 144)} of 144 validation images right" in text
    assert ("is the highest of all trials" in text) == (len(done) > 1)


def page_of(record=SEARCH, final=None, plots=False):
    """The page of a search. Plots take most of the time, so tests of the text leave them out."""
    with contextlib.nullcontext() if plots else without_plots(search_plots):
        return Page(render_search_report(record, final=final))


@pytest.fixture(scope="module")
def whole(small_forest):
    return page_of(final=FINAL, plots=True)


def test_the_settings_are_shown(whole):
    text = whole.text.replace("\u00a0", " ")
    for shown in (
        "Search defect28 on photos/steel",
        "trials done41",
        "trials failed0",
        "total time2 h 1 min",
        "learning rate0.0003 to 0.006, log-uniform",
        "stemconv or linear",
        "patch sizefrozen at 4",
        "train 1,296, validation 144, test 360",
        "crazing, scratches",
        "1.4.8",
        "jax",
        "python -m tuning --data photos/steel",
        "1 epoch (18)",
        "3 epochs (14)",
        "Importance",
    ):
        assert shown.replace(" ", "") in text.replace(" ", ""), shown


def test_times_are_those_of_all_trials(whole):
    assert duration(sum(t.seconds for t in SEARCH.trials)) in "".join(whole.texts)


def test_the_final_evaluation_is_shown(whole):
    text = "".join(whole.texts)
    low, high = FINAL["accuracy_interval"]
    assert f"between {percent(low)} and {percent(high)}" in text
    assert "350 of 360 test images right" in text
    assert "the search never saw the test images" in text
    assert "train + validation for 9 epochs" in text
    assert "test images" not in page_of(first(SEARCH, 3)).text


def test_the_final_evaluation_may_hold_less(small_forest):
    page = page_of(first(SEARCH, 3), final={"accuracy": 0.5})
    assert "the search never saw the test images" in page.text


@pytest.mark.parametrize(
    ("score", "shown", "not_shown"),
    [
        (0.5, ["points better than", "lies outside it", "optimistic"], "worse than"),
        (0.99, ["points worse than"], "better than"),
        (None, [], "baseline"),
    ],
)
def test_the_baseline_is_compared_at_the_same_epochs(score, shown, not_shown):
    record = with_config(SEARCH, baseline={"name": "the old one", "score": score, "epochs": 9})
    sentence = report.baseline_sentence(record) or ""
    assert all(text in sentence for text in shown)
    assert not_shown not in sentence


def test_the_difference_to_a_baseline_inside_the_interval_is_not_significant():
    best = max(t.score for t in SEARCH.trials if t.epochs == 9)
    record = with_config(SEARCH, baseline={"name": "it", "score": best, "epochs": 9})
    assert "no better and no worse" in report.baseline_sentence(record)
    record = with_config(SEARCH, baseline={"name": "it", "score": best - 0.01, "epochs": 9})
    assert "1.0\u00a0points better than it" in report.baseline_sentence(record)
    assert "the difference is not significant" in report.baseline_sentence(record)
    record = with_config(SEARCH, baseline={"name": "it", "score": 0.9, "epochs": 60})
    assert "nothing to compare it with" in report.baseline_sentence(record)


def rows_of(record):
    searched = analysis.hyperparameters(record)
    found = analysis.effects(record.trials, searched)
    return {row["name"]: row for row in report.study(record, best_trial(record.trials), searched, found)}


def test_the_study_shows_value_effect_and_reason():
    rows = rows_of(SEARCH)
    assert list(rows)[:7] == ["learning rate", "batch size", "patch size", "dim", "depth", "heads", "epochs"]
    assert all(row["why"] for row in rows.values())
    assert rows["patch size"]["best"] == "4"
    assert rows["patch size"]["effect"] == ["frozen: not searched"]
    assert rows["stem"]["best"] == "conv"
    assert rows["stem"]["effect"][0].startswith("difference of medians: conv over linear by ")
    assert rows["depth"]["effect"][0] == "not significant in this search"
    assert rows["depth"]["effect"][1].startswith("rank correlation ")
    assert [line.split("\u00a0points from ")[1] for line in rows["epochs"]["effect"]] == [
        "1 to 3\u00a0epochs (6 promoted trials)",
        "3 to 9\u00a0epochs (5 promoted trials)",
    ]
    assert all(re.match(r"median gain \+\d+\.\d\u00a0points", line) for line in rows["epochs"]["effect"])


def test_the_study_does_not_claim_what_was_not_measured():
    rows = rows_of(first(SEARCH, 5))
    assert rows["dim"]["effect"] == ["too few trials to measure"]
    assert rows["epochs"]["effect"] == ["not measured: no promoted trial is done"]
    rows = rows_of(first(SEARCH, 0))
    assert rows["dim"]["best"] == UNKNOWN
    assert rows["patch size"]["best"] == "4"
    unknown = dataclasses.replace(SEARCH, config={"searched": ["rank"]}, trials=[])
    assert rows_of(unknown)["rank"]["why"] == ""


def test_effects_as_text():
    given = dict(name="dim", p=0.5, significant=False)
    effects = [
        Effect(epochs=1, trials=27, size=0.391, **given),
        Effect(epochs=3, trials=9, size=-0.001, **given),
    ]
    shown = [line.replace("\u00a0", " ") for line in report.effect_lines("dim", effects)]
    assert shown == [
        "not significant in this search",
        "rank correlation +0.39 at 1 epoch (27 trials), 0.00 at 3 (9)",
    ]
    effects[1] = Effect("dim", 3, 9, -0.9, 0.001, significant=True)
    shown = [line.replace("\u00a0", " ") for line in report.effect_lines("dim", effects)]
    assert shown == [
        "rank correlation \u22120.90 at 3 epochs (9 trials)",
        "not significant: rank correlation +0.39 at 1 epoch (27 trials)",
    ]


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (first(SEARCH, 10), "Importances cannot be estimated: that needs at least 20 trials"),
        (
            synthetic.search(searched=["learning_rate", "dim"]),
            "Importances cannot be estimated: on held-out points",
        ),
        (SEARCH, "A random forest explains"),
    ],
    ids=["too few", "noise", "planted"],
)
def test_importances_are_shown_only_where_there_are_some(record, shown, small_forest):
    page = page_of(record)
    assert shown in page.text
    drawn = any(image["alt"].startswith("Importance") for image in page.all("img"))
    assert drawn == (record is SEARCH)


def test_the_front_is_listed(whole):
    scores = [t.score for t in SEARCH.trials]
    front = analysis.pareto_front([t.parameters for t in SEARCH.trials], scores)
    times = analysis.total_seconds(SEARCH.trials)
    assert front
    text = "".join(whole.texts)
    for i in front:
        assert f"{SEARCH.trials[i].parameters:,}" in text
        assert report.spent(times[SEARCH.trials[i].trial_id]) in text


def test_everything_given_is_escaped(whole):
    searched = [*SEARCH.config["searched"], EVIL]
    config = {**everywhere(SEARCH.config), "searched": searched, EVIL: {EVIL: EVIL}}
    trials = [
        dataclasses.replace(
            trial,
            trial_id=trial.trial_id + EVIL,
            promoted_from=trial.promoted_from and trial.promoted_from + EVIL,
            values={**everywhere(trial.values), EVIL: "划痕" if i % 2 else EVIL * 20},
            error=EVIL,
        )
        for i, trial in enumerate(SEARCH.trials)
    ]
    record = dataclasses.replace(SEARCH, config=config, trials=trials)
    page = page_of(record, final=everywhere(FINAL), plots=True)
    pictures = len(whole.all("img")) + 1  # the scatter plot of one more hyperparameter
    check_escaped(page, pictures, mentions=100)


def test_the_same_search_gives_the_same_page(small_forest):
    record = first(SEARCH, 4)
    assert render_search_report(record, final=FINAL) == render_search_report(record, final=FINAL)


def test_more_epochs_are_darker_and_have_another_marker():
    marks = search_plots.epoch_marks([1, 27, 3, 9, 9])
    assert list(marks) == [1, 3, 9, 27]
    lightness = [sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour, _, _ in marks.values()]
    assert lightness == sorted(lightness, reverse=True)
    assert len({marker for _, marker, _ in marks.values()}) == 4
    assert search_plots.epoch_marks([]) == {}


@pytest.mark.parametrize(
    ("given", "shown"),
    [("conv", "conv"), ("a $x$ b", "a $x$ b"), ("划痕", "??"), ("x" * 30, "x" * 13 + "…"), ("a\n b", "a b")],
)
def test_labels_are_short_and_plain(given, shown):
    assert search_plots.plain(given) == shown
