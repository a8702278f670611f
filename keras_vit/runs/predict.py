"""Classifies image files with a finished run, or with several together."""

from collections.abc import Sequence
from pathlib import Path

from keras_vit.runs.ensemble import Ensemble, open_runs
from keras_vit.runs.folder import Run
from keras_vit.runs.predictions import Prediction, predictions


def predict(
    run: Run | Ensemble | str | Path,
    images: Sequence[str | Path],
    flips: bool = False,
    accept_risk: float | None = None,
) -> list[Prediction]:
    """Classifies image files with the best model of a run, or with those of several runs together.

    Each file is decoded once by each run.

    Args:
        run: a run, what `keras_vit.train(folds=...)` or `seeds=...` returned, or the folder of either.
        images: paths of image files.
        flips: whether the answer is the mean over each image and its three mirror images, which takes four
            times as long: see `keras_vit.runs.answer.answer_model`.
        accept_risk: at most this fraction of the images that are not referred to a person may have a wrong
            label, on average; `None` for what the run was trained with.

    Returns:
        One `Prediction` per image, in order. An image that cannot be read gets an `error` and does not affect
        the others. Several runs answer with their mean probabilities: see
        `keras_vit.runs.ensemble.Ensemble.predict`.

    Raises:
        InputError: the run cannot be used, or does not support so small a risk.
    """
    found = run if isinstance(run, Run | Ensemble) else open_runs(run)
    if isinstance(found, Ensemble):
        return found.predict(images, flips, accept_risk)
    return predictions(found.accepting(accept_risk), images, flips)
