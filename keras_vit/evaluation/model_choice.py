"""Which kind of model to take for one's images: a rule on what a comparison measured, and one sentence.

The rule, at each number of training images:

1. A model that is not better than an answer without looking at the image is out.
2. The best of the others is the one with the highest accuracy. A model with fewer mult-adds per image is
   taken instead if it is as good: the interval of their difference contains 0, and it is at most `NEAR`
   lower.
3. The choice is called certain if each model with a lower accuracy that is not as good differs certainly.

Whether a ViT pays follows from the best ViT and the best convolutional network at the largest number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from keras_vit.evaluation.learned import Named
from keras_vit.evaluation.repeated import Estimate, estimate_accuracy, estimate_difference

NEAR = 0.01
"""So much lower an accuracy counts as the same, if chance explains the difference."""

ALL = "all"
"""The number of training images that is all of them."""

Verdict = Literal[
    "pays", "does not pay", "same", "uncertain", "nothing learned", "nothing trained", "one kind"
]


@dataclass(frozen=True, eq=False)
class Answers:
    """What one model named for the test images, with one number of training images.

    Args:
        model: its name.
        predicted: int (repeats, images).
        labels: int (images,).
    """

    model: str
    predicted: np.ndarray
    labels: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """bool (repeats, images)."""
        return self.predicted == self.labels

    @property
    def has_learned(self) -> bool:
        """Whether most of the repeats are better than an answer without looking at the image."""
        found = [Named(self.labels, one).beats_chance() for one in self.predicted]
        return 2 * sum(found) > len(found)


@dataclass(frozen=True)
class Choice:
    """The model to take with one number of training images.

    Args:
        model: its name; `None` where none has learned anything.
        accuracy: of it.
        as_good: the others that are as good, and cost more.
        is_certain: whether the others are certainly worse.
    """

    model: str | None
    accuracy: Estimate | None
    as_good: tuple[str, ...]
    is_certain: bool


def choose_model(
    tested: Sequence[Answers], mult_adds: Mapping[str, int], clusters: np.ndarray | None = None
) -> Choice:
    """The model to take with one number of training images, see the rule above.

    Args:
        tested: one or more models, of the same images.
        mult_adds: per image, by model.
        clusters: see `estimate_accuracy`.
    """
    learned = [one for one in tested if one.has_learned]
    if not learned:
        return Choice(None, None, (), False)
    best = max(learned, key=lambda one: (one.right.mean(), -mult_adds[one.model]))
    as_good = [one for one in learned if one is best or is_as_good(one, best, clusters)]
    chosen = min(as_good, key=lambda one: mult_adds[one.model])
    others = [one for one in tested if one not in as_good]
    is_certain = all(estimate_difference(best.right, one.right, clusters).low > 0 for one in others)
    return Choice(
        chosen.model,
        estimate_accuracy(chosen.right, clusters),
        tuple(one.model for one in as_good if one is not chosen),
        is_certain,
    )


def is_as_good(one: Answers, best: Answers, clusters: np.ndarray | None = None) -> bool:
    """Whether a model is as good as a better one: chance explains the difference, and it is small."""
    difference = estimate_difference(best.right, one.right, clusters)
    return difference.low <= 0 and difference.mean <= NEAR


def judge_models(
    table: Mapping[Any, Sequence[Answers]],
    mult_adds: Mapping[str, int],
    vits: Sequence[str],
    titles: Mapping[str, str],
    training_images: Mapping[Any, int],
    clusters: np.ndarray | None = None,
) -> dict[str, Any]:
    """The choice at each number of training images, whether a ViT pays, and the sentence of advice.

    Args:
        table: number of training images per class, or `"all"` -> the models that were tested with it, from
            few images to many.
        mult_adds: per image, by model.
        vits: the models that are ViTs; the others are convolutional.
        titles: what the sentence calls the models.
        training_images: number per class -> of all classes together.
        clusters: see `estimate_accuracy`.

    Returns:
        A dict, ready for JSON: `advice`; `verdict`; `choices`, by number; `difference` of the best ViT and
        the best convolutional network at the largest number that both have: `vit`, `other`, `number`, `mean`
        and `interval`, or None.
    """
    choices = {number: choose_model(tested, mult_adds, clusters) for number, tested in table.items()}
    both = [
        number
        for number, tested in table.items()
        if {one.model in vits for one in tested} == {True, False} and choices[number].model is not None
    ]
    verdict: Verdict = "one kind"
    difference = None
    if not table:
        verdict = "nothing trained"
    elif all(choice.model is None for choice in choices.values()):
        verdict = "nothing learned"
    elif both:
        number = both[-1]
        vit, other = (
            max(
                (one for one in table[number] if (one.model in vits) == is_vit),
                key=lambda one: one.right.mean(),
            )
            for is_vit in (True, False)
        )
        found = estimate_difference(vit.right, other.right, clusters)
        verdict = _verdict(found)
        difference = {
            "vit": vit.model,
            "other": other.model,
            "number": number,
            "mean": found.mean,
            "interval": [found.low, found.high],
        }
    return {
        "advice": _sentence(choices, verdict, difference, mult_adds, titles, training_images, table),
        "verdict": verdict,
        "choices": {
            str(number): {"model": one.model, "as_good": list(one.as_good), "is_certain": one.is_certain}
            for number, one in choices.items()
        },
        "difference": difference,
    }


def _verdict(found: Estimate) -> Verdict:
    if found.low > 0:
        return "pays"
    if found.high < 0:
        return "does not pay"
    return "same" if abs(found.mean) <= NEAR else "uncertain"


def _sentence(
    choices: Mapping[Any, Choice],
    verdict: Verdict,
    difference: Mapping[str, Any] | None,
    mult_adds: Mapping[str, int],
    titles: Mapping[str, str],
    training_images: Mapping[Any, int],
    table: Mapping[Any, Sequence[Answers]],
) -> str:
    if not table:
        return "No training is whole yet, so there is no advice: the same command continues."
    if verdict == "nothing learned":
        last = list(table)[-1]
        best = max(table[last], key=lambda one: one.right.mean())
        label_counts = np.bincount(best.labels)
        return (
            f"No model has learned anything from these images (the best, {titles[best.model]}, names "
            f"{best.right.mean():.1%} right with {_with(last, last, training_images)}, and always naming one "
            f"class gives {label_counts.max() / label_counts.sum():.1%}), so check the labels, or try larger "
            "images or published weights first."
        )
    parts: list[str] = []
    for first, last, choice in reversed(_stretches(choices)):
        if choice.model is None:
            continue
        where = _with(first, last, training_images)
        accuracy = ""
        if choice.accuracy is not None and not parts:
            low, high = choice.accuracy.low, choice.accuracy.high
            accuracy = f" ({choice.accuracy.mean:.1%} right, 95 % interval {low:.1%} to {high:.1%})"
        parts.append(f"{titles[choice.model]}{accuracy} with {where}")
    said = "Take " + ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
    if difference is None:
        return f"{said}."
    (low, high), number = difference["interval"], difference["number"]
    vit, other = titles[difference["vit"]], titles[difference["other"]]
    points = f"{100 * difference['mean']:+.1f} points, interval {100 * low:+.1f} to {100 * high:+.1f}"
    compared = f"{vit} against {other} with {_with(number, number, training_images)}: {points}"
    times = mult_adds[difference["vit"]] / mult_adds[difference["other"]]
    cost = f"{times:.1f} times the mult-adds" if times >= 1 else f"{1 / times:.1f} times fewer mult-adds"
    match verdict:
        case "pays":
            return f"{said}: a ViT pays for these images ({compared}, for {cost})."
        case "does not pay":
            return f"{said}: a ViT does not pay for these images ({compared}, for {cost})."
        case "same":
            return f"{said}: a ViT and a CNN are equally accurate here ({compared}, for {cost})."
    return f"{said}, but whether a ViT pays is not certain ({compared}): more --repeats or test images tell."


def _with(first: Any, last: Any, training_images: Mapping[Any, int]) -> str:
    """Numbers of images in words: `"5 to 30 images per class"`."""
    of_all = f"all {training_images[last]:,} training images"
    if first == last:
        return of_all if last == ALL else f"{first} images per class"
    return f"{first} images per class to {of_all}" if last == ALL else f"{first} to {last} images per class"


def _stretches(choices: Mapping[Any, Choice]) -> list[tuple[Any, Any, Choice]]:
    """(first number, last number, the choice of the last one) of the numbers in a row with one choice."""
    found: list[tuple[Any, Any, Choice]] = []
    for number, choice in choices.items():
        if found and found[-1][2].model == choice.model:
            found[-1] = (found[-1][0], number, choice)
        else:
            found.append((number, number, choice))
    return found
