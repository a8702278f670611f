"""Classifies image files with a finished run, or with several together."""

from collections.abc import Sequence
from pathlib import Path

from keras_vit.runs.ensemble import Ensemble, open_runs
from keras_vit.runs.folder import Run
from keras_vit.runs.predictions import Prediction, named_images, predictions
from keras_vit.runs.wanted import Costs, MinRecall


def predict(
    run: Run | Ensemble | str | Path,
    images: Sequence[str | Path],
    flips: bool = False,
    accept_risk: float | None = None,
    crop_boxes: bool = False,
    allow_outside: bool = False,
    min_recall: MinRecall = None,
    costs: Costs = None,
) -> list[Prediction]:
    """Classifies image files with the best model of a run, or with those of several runs together.

    Each file is decoded once by each run.

    Args:
        run: a run, what `keras_vit.train(folds=...)` or `seeds=...` returned, or the folder of either.
        images: paths of image files, and of tables of paths, such as `"labels.csv"`.
        flips: whether the answer is the mean over each image and its three mirror images, which takes four
            times as long: see `keras_vit.runs.answer.answer_model`.
        accept_risk: at most this fraction of the images that are not referred to a person may have a wrong
            label, on average; `None` for what the run was trained with.
        crop_boxes, allow_outside: how tables are read, see `load_image_set`.
        min_recall, costs: which class is named, see `Run.deciding`; `None` for what the run was trained with.

    Returns:
        One `Prediction` per image, in order; images of a table have the names that it gives them. An image
        that cannot be read gets an `error` and does not affect the others. Several runs answer with their
        mean probabilities: see `keras_vit.runs.ensemble.Ensemble.predict`.

    Raises:
        InputError: the run or a table cannot be used, or the run does not support so small a risk.
    """
    found = run if isinstance(run, Run | Ensemble) else open_runs(run)
    found = found.deciding(min_recall, costs)
    if isinstance(found, Ensemble):
        return found.predict(images, flips, accept_risk, crop_boxes, allow_outside)
    run = found.accepting(accept_risk)
    return predictions(run, named_images(run.class_names, images, crop_boxes, allow_outside), flips)
