"""Judges a finished run again, on its own test images or on other images."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.data.image_set import ImageSet
from keras_vit.errors import InputError
from keras_vit.evaluation.decision import DECISION, on_images
from keras_vit.evaluation.labels import label_metrics
from keras_vit.evaluation.metrics import classification_metrics
from keras_vit.evaluation.trust import REFERRAL, SETS, referral_figures, set_figures
from keras_vit.runs.answer import answer_images
from keras_vit.runs.ensemble import Ensemble, open_runs, votes
from keras_vit.runs.folder import Run
from keras_vit.runs.images import NAMED
from keras_vit.runs.judged_images import judged_images
from keras_vit.runs.out_of_fold import OUT_OF_FOLD
from keras_vit.runs.robustness import judge_corruptions, keep_corruptions
from keras_vit.runs.wanted import Costs, MinRecall
from keras_vit.text import say


def evaluate(
    run: Run | Ensemble | str | Path,
    data: str | None = None,
    flips: bool = False,
    leave_out_known: bool = False,
    corruptions: bool = False,
    accept_risk: float | None = None,
    crop_boxes: bool = False,
    allow_outside: bool = False,
    min_recall: MinRecall = None,
    costs: Costs = None,
    fixes: str | None = None,
) -> dict[str, Any]:
    """Judges the best model of a run on its test images, or on all images of other data.

    Args:
        run: a run or its folder; or several, of `keras_vit.train(folds=...)`, whose mean probabilities are
            judged on `data`. Without `data`, the folds give what is known of each image by the fold that is
            tested on it.
        data: what `load_image_set` takes, with classes that the run knows; `None` for the run's own test
            images, which are found by their content where they were.
        flips: whether the answers are the mean over each image and its three mirror images, which takes four
            times as long: see `keras_vit.runs.answer.answer_model`.
        leave_out_known: whether images of `data` that trained the run, or chose its epoch, are left out.
        corruptions: whether the run is judged on the same images with noise, blur, other light and more, too.
            Those of its own test images are kept in `corruptions.json` and in the report of the run.
        accept_risk: at most this fraction of the images that are not referred to a person may have a wrong
            label, on average; `None` for what the run was trained with.
        crop_boxes, allow_outside: how a table in `data` is read, see `load_image_set`.
        min_recall, costs: which class is named, see `Run.deciding`; `None` for what the run was trained with.
        fixes: a file of what a person has decided on the images of `data`, see `load_image_set`.

    Returns:
        The result of `keras_vit.evaluation.metrics.classification_metrics`; `source`; `flips_at_test`;
        `notes`, what is to be known of the images, one line each; and `known_images`: how many of the images
        `trained` the run, `chose_epoch` or `tested` it, and how many are `left_out`. That is `None` for a
        run of an earlier version, which did not record its images. With `corruptions`, an entry of this name:
        see `keras_vit.runs.robustness.judge_corruptions`. `prediction_sets` and `referral`, of
        `keras_vit.evaluation.trust`; they are `None` if the run has learned no prediction sets. `decision`:
        `None` where the likeliest class is named, otherwise the entry of
        `keras_vit.evaluation.decision.judge_decision`, with what the rule changes on these images under
        `test`.

    Raises:
        InputError: the run or the images cannot be used, the test images have changed, the classes differ,
            the model gives no finite probabilities, or the run does not support so small a risk.
    """
    run = run if isinstance(run, Run | Ensemble) else open_runs(run)
    how_read: dict[str, Any] = {"crop_boxes": crop_boxes, "allow_outside": allow_outside, "fixes": fixes}
    if isinstance(run, Ensemble):
        if corruptions:
            raise InputError(
                f"Corrupted images are for one run: give {run.runs[0].path}, or omit --corruptions."
            )
        if data is None:
            asked = (accept_risk, min_recall, costs)
            others = flips or leave_out_known or asked != (None, None, None) or any(how_read.values())
            return _out_of_fold(run, others)
        run = run.deciding(min_recall, costs)
        return _evaluate_together(run, data, flips, leave_out_known, accept_risk, **how_read)
    run = run.deciding(min_recall, costs).accepting(accept_risk)
    judged = judged_images(run, data, leave_out_known, **how_read)
    image_set = judged.images
    labels = image_set.labels
    answers = answer_images(run.answers(flips), image_set.images, run.preprocessing)
    _require_finite(run, image_set, answers["probabilities"])
    notes, more = list(judged.notes), {}
    if corruptions:
        more["corruptions"] = judge_corruptions(run, image_set, labels, flips, say)
        untold = keep_corruptions(run, more["corruptions"]) if data is None and not flips else None
        notes += [untold] if untold else []
    return {
        "source": image_set.source,
        "flips_at_test": flips,
        "notes": notes,
        "known_images": judged.known,
        **figures(run, labels, answers["probabilities"], answers["label"]),
        **_trust(run, labels, answers),
        DECISION: on_images(run.settled.get(DECISION), run.class_names, labels, answers),
        **more,
    }


def figures(
    run: Run | Ensemble, labels: np.ndarray, probabilities: np.ndarray, named: np.ndarray | None = None
) -> dict[str, Any]:
    """What the answers of a run are worth, of one class per image or of several labels.

    Args:
        run: the run, or several.
        labels: of the images.
        probabilities: (n, classes).
        named: int (n,), the classes that a rule names, of one class per image; `None` for the likeliest.
    """
    thresholds = run.thresholds
    if thresholds is None:
        return classification_metrics(labels, probabilities, run.class_names, named, run.ordered)
    return label_metrics(labels, probabilities, thresholds, run.class_names)


def _out_of_fold(runs: Ensemble, others: bool) -> dict[str, Any]:
    """What the folds found about the images that each is tested on. Nothing is computed again.

    Args:
        runs: the folds.
        others: whether there are options that would change the answers.
    """
    if runs.metrics["kind"] == "seeds":
        raise InputError(
            f"The runs in {runs.path} are tested on different images: give other images with --data, or one "
            f"of the runs, such as {runs.runs[0].path}."
        )
    if others:
        raise InputError(
            f"Without --data, the figures of {runs.path} are those that the folds were trained with: "
            f"give images with --data, or one of the folds, such as {runs.runs[0].path}, or omit the others."
        )
    note = (
        f"each image by the fold that was not trained on it, as {runs.path / OUT_OF_FOLD} has it; the mean "
        "of all folds is evaluated on other images with --data"
    )
    return {
        "source": runs.config["data"]["source"],
        "flips_at_test": False,
        "notes": [note],
        "known_images": None,
        **runs.metrics["pooled"],
        SETS: None,
        REFERRAL: None,
        DECISION: None,
    }


def _evaluate_together(
    runs: Ensemble,
    data: str,
    flips: bool,
    leave_out_known: bool,
    accept_risk: float | None,
    **how_read: Any,
) -> dict[str, Any]:
    """`evaluate`, by the mean of the calibrated probabilities of all runs."""
    of_runs, record = [], runs.learned()
    members = [run.accepting(accept_risk) for run in runs.runs]
    for run in members:
        judged = judged_images(run, data, leave_out_known, record=record, **how_read)
        of_runs.append(answer_images(run.answers(flips), judged.images.images, run.preprocessing))
        _require_finite(run, judged.images, of_runs[-1]["probabilities"])
    image_set = judged.images
    labels = image_set.labels
    probabilities = np.mean([found["probabilities"] for found in of_runs], axis=0)
    best = probabilities.argmax(axis=1) if runs.rule is None else runs.rule.decide(probabilities)
    answers = {"probabilities": probabilities, "label": best}
    trust: dict[str, Any] = {SETS: None, REFERRAL: None}
    if all("prediction_set" in found for found in of_runs):
        in_set, refers, label = (
            np.stack([found[name] for found in of_runs]) for name in ("prediction_set", "refer", "label")
        )
        by_set = not any(run.accepts_risk for run in members)
        sets, refer = votes(in_set == 1, refers == 1, label, best, by_set)
        settings = members[0].settled
        trust = {
            # Of the majority of sets of 95 %, twice as many may miss the true class: see Ensemble.predict.
            SETS: {
                "level": 1 - 2 * (1 - settings[SETS]["level"]),
                **set_figures(runs.class_names, labels, sets),
            },
            REFERRAL: {
                "accepted_risk": settings[REFERRAL]["accepted_risk"],
                **referral_figures(refer, best == labels),
            },
        }
    return {
        "source": image_set.source,
        "flips_at_test": flips,
        "notes": [runs.line(), *judged.notes],
        "known_images": judged.known,
        **figures(runs, labels, probabilities, best),
        **trust,
        DECISION: on_images(runs.decision, runs.class_names, labels, answers),
    }


def _trust(run: Run, labels: np.ndarray, answers: dict[str, np.ndarray]) -> dict[str, Any]:
    """How good the prediction sets and the referral are."""
    if run.prediction_sets is None:
        return {SETS: None, REFERRAL: None}
    metrics = run.settled
    sets = set_figures(run.class_names, labels, answers["prediction_set"] == 1)
    referral = referral_figures(answers["refer"] == 1, answers["label"] == labels)
    return {
        SETS: {"level": metrics[SETS]["level"], **sets},
        REFERRAL: {"accepted_risk": metrics[REFERRAL]["accepted_risk"], **referral},
    }


def _require_finite(run: Run, image_set: ImageSet, probabilities: np.ndarray) -> None:
    """Raises InputError if a model gives no probabilities for an image, which would have a label."""
    broken = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(broken):
        names = ", ".join(image_set.names[i] for i in broken[:NAMED])
        more = f", and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        raise InputError(
            f"The model of {run.path} gives no finite probabilities for {len(broken)} of {len(image_set)} "
            f"images ({names}{more}): its weights are damaged, or its training has diverged. Train it again."
        )
