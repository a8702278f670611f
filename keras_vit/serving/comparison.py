"""How much the answers of an exported model may differ from those of Keras, in every output."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_vit.errors import InputError
from keras_vit.serving.label_comparison import changed_several
from keras_vit.serving.named_comparison import changed_labels
from keras_vit.serving.set_comparison import changed_decisions


@dataclass(frozen=True)
class Comparison:
    """How much the answers of an exported model differ from those of the Keras model.

    Args:
        images: how many were compared.
        difference: the largest difference of a probability.
        same_class: for how many images the likeliest class is the same.
        same_reject: how many images are accepted by both or rejected by both; `None` if the format does not
            answer that.
        feature_difference: the largest difference of a feature; `None` if the format has none.
        converted: how many had to be sent as PNG, pixels or values, because the exported model does not
            decode the files.
        same_set: for how many images the prediction set is the same; `None` if there are none.
        same_refer: how many images are referred to a person by both or by none; `None` likewise.
        same_labels: for how many images all of several labels are the same; `None` for one class per image.
        same_label: for how many images the rule names the same class; `None` if the run has none.
    """

    images: int
    difference: float
    same_class: int
    same_reject: int | None = None
    feature_difference: float | None = None
    converted: int = 0
    same_set: int | None = None
    same_refer: int | None = None
    same_labels: int | None = None
    same_label: int | None = None

    def line(self) -> str:
        """It in one line."""
        rejected = "" if self.same_reject is None else f", the same reject for {self.same_reject}"
        if self.same_label is not None:
            rejected = f", the same label by the rule for {self.same_label}{rejected}"
        if self.same_set is not None:
            rejected += f", the same prediction set for {self.same_set}, the same refer for {self.same_refer}"
        if self.same_labels is not None:
            rejected += f", the same labels for {self.same_labels}"
        converted = (
            f"; {self.converted} of the files are of a kind that it does not decode and were sent as PNG or "
            "pixels, as keras-vit request does"
        )
        return (
            f"compared with Keras on {self.images} images: probabilities differ by {self.difference:.1e} at "
            f"most, the same class for {self.same_class}{rejected}{converted if self.converted else ''}"
        )


@dataclass(frozen=True)
class Tolerance:
    """How much the answers of a file may differ from those of Keras.

    Args:
        probability: the largest difference of a probability.
        features: the largest difference of a feature, as a fraction of the largest feature (or of 1).
        margin: only ties may change their class: images whose two highest probabilities differ by at most
            this for Keras.
        distance: only ties may change between accepted and rejected: images whose distance differs from the
            threshold by at most this fraction of it.
        changed: the largest fraction of the images that may change, even if they are ties (rounded up).
        fix: what to do if the answers differ more.
        who: whose answers differ, for the message.
        log_odds: only ties may change their prediction set or their referral: differences of the log-odds
            from a threshold of at most this, or this fraction of them.
        sets_changed: the largest fraction of the images whose set or referral may change, even if they are
            ties.
    """

    probability: float
    features: float
    margin: float
    distance: float
    changed: float
    fix: str
    who: str = "the file"
    log_odds: float = 1e-2
    sets_changed: float = 1.0

    def refusal(self, how: str) -> InputError:
        """The error for answers that differ too much."""
        return InputError(
            f"The answers of {self.who} differ from those of Keras, so nothing is written: {how}: {self.fix}."
        )


def compare_answers(
    expected: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    tolerance: Tolerance,
    images: int | None = None,
) -> Comparison:
    """Compares all outputs of an exported model with those of Keras.

    Args:
        expected: `probabilities` (n, classes), `features` (n, dim), and `distance` (n,), as a multiple of the
            threshold, of Keras; and what `to_thresholds` returns.
        found: `probabilities`, `features` and `reject` (n,) of the exported model; `label` (n,), a class
            number, and `confidence` (n,) if it answers these too; and the prediction sets, if it has any.
        tolerance: what is allowed.
        images: how many different images there are; the others repeat them. `None` for all.

    Raises:
        InputError: the answers differ more.
    """
    images = len(expected["distance"]) if images is None else images
    right = expected["probabilities"].argmax(axis=1)
    new_class = found["probabilities"].argmax(axis=1) != right
    by_rule = changed_labels(expected, found, tolerance.log_odds)
    likeliest = found.get("label" if by_rule is None else "likeliest")
    if likeliest is not None:
        new_class |= likeliest != right
    decisions = changed_decisions(expected, found, tolerance.log_odds)
    new_labels = changed_several(expected, found, tolerance.margin)
    new_reject = (found["reject"] != 0) != ~(expected["distance"] <= 1)  # NaN is rejected
    differences = Comparison(
        images=images,
        difference=_largest(found["probabilities"], expected["probabilities"]),
        same_class=int((~new_class)[:images].sum()),
        same_reject=int((~new_reject)[:images].sum()),
        feature_difference=_largest(found["features"], expected["features"]),
        same_set=int((~decisions[0][1])[:images].sum()) if decisions else None,
        same_refer=int((~decisions[1][1])[:images].sum()) if decisions else None,
        same_labels=int((~new_labels[0])[:images].sum()) if new_labels else None,
        same_label=None if by_rule is None else int((~by_rule[0])[:images].sum()),
    )
    assert differences.feature_difference is not None
    checks = [
        ("probability", differences.difference, tolerance.probability),
        (
            "feature",
            differences.feature_difference,
            tolerance.features * max(1.0, float(np.abs(expected["features"]).max())),
        ),
    ]
    if "confidence" in found:
        of_label = expected["probabilities"].max(axis=1)
        if by_rule is not None:
            of_label = expected["probabilities"][np.arange(len(right)), found["label"]]
        confidence = _largest(found["confidence"], of_label)
        checks.append(("confidence", confidence, tolerance.probability))
    for name, difference, allowed in checks:
        if not difference <= allowed:  # also if it is NaN
            raise tolerance.refusal(f"a {name} differs by {difference:.1e}, {allowed:.0e} is allowed")
    _check_ties(
        "get another class",
        new_class[:images],
        new_class & (margins(expected["probabilities"]) > tolerance.margin),
        f"where their two likeliest classes are within {tolerance.margin:g}",
        tolerance,
    )
    if by_rule is not None:
        _check_ties(
            "are called otherwise by the rule",
            by_rule[0][:images],
            by_rule[1],
            f"where what decides differs by {tolerance.log_odds:g} of it",
            dataclasses.replace(tolerance, changed=tolerance.sets_changed),
        )
    _check_ties(
        "are rejected by one and accepted by the other",
        new_reject[:images],
        new_reject & ~(np.abs(expected["distance"] - 1) <= tolerance.distance),
        f"within {tolerance.distance:.1%} of the threshold",
        tolerance,
    )
    of_sets = dataclasses.replace(tolerance, changed=tolerance.sets_changed)
    if new_labels:
        near = f"where probabilities are within {tolerance.margin:g} of a threshold"
        _check_ties("get other labels", new_labels[0][:images], new_labels[1], near, of_sets)
    for what, changed, clear in decisions:
        near = f"where log-odds are within {tolerance.log_odds:g} of a threshold"
        _check_ties(what, changed[:images], clear, near, of_sets)
    return differences


def _check_ties(what: str, changed: np.ndarray, clear: np.ndarray, tie: str, tolerance: Tolerance) -> None:
    """Raises InputError if images that are no ties have changed, or too many that are."""
    few, count = math.ceil(tolerance.changed * len(changed)), int(changed.sum())
    if clear.any() or count > few:
        raise tolerance.refusal(f"{count} of {len(changed)} images {what}, {few} may, {tie}")


def margins(probabilities: np.ndarray) -> np.ndarray:
    """The differences between the two highest probabilities of each image."""
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    return first - second


def _largest(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found.astype("float64") - expected).max())


def join(batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The outputs of several batches as one."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
