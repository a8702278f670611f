"""train(): the one door to a training run, and to several of the same settings."""

import dataclasses
from pathlib import Path
from typing import Any

from keras_vit.runs.ensemble import Ensemble, is_ensemble
from keras_vit.runs.folder import Run
from keras_vit.training.config import TrainConfig
from keras_vit.training.folds import train_several
from keras_vit.training.run import train_on


def train(config: TrainConfig | None = None, **changes: Any) -> Run | Ensemble:
    """Trains a ViT and leaves a run folder with the model, its history, its judgement and a report.

    Until the run is finished, it is in a sibling folder, `OUT.partial`. A run that was cut off, however
    hard, continues from its last finished epoch with `resume=True`, and ends as an uncut one would.

    With `folds` or `seeds`, several runs are trained one after the other, in folders below `OUT`, and are
    evaluated together.

    Args:
        config: all settings; `None` for the defaults.
        **changes: fields of `TrainConfig` to change.

    Returns:
        The finished run. With `folds` or `seeds`, the `keras_vit.Ensemble` of all: `runs` are the runs,
        `metrics` their figures together, and `predict(images)` answers with the mean of their probabilities.

    Raises:
        InputError: an argument or an image cannot be used; nothing is left behind.

    Example:
        >>> run = keras_vit.train(data="images", out="runs/first")
        >>> run.metrics["best"]["accuracy"]
        >>> folds = keras_vit.train(data="images", folds=5, out="runs/folds")
        >>> folds.metrics["mean"]["accuracy"]["interval"]
    """
    wanted = dataclasses.replace(config or TrainConfig(), **changes)
    continues = wanted.resume and wanted.out is not None and is_ensemble(Path(wanted.out))
    if wanted.is_several or continues:
        return train_several(wanted)
    return train_on(wanted)
