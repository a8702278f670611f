"""Whether a run will have the images for the least recall that is asked for."""

import numpy as np

from keras_vit.data.pipeline import ImageData
from keras_vit.errors import InputError
from keras_vit.runs.wanted import wanted_of
from keras_vit.text import shown
from keras_vit.training.config import TrainConfig
from keras_vit.training.probe import has_folds


def check_decision(config: TrainConfig, data: ImageData) -> None:
    """Refuses before the training what no trained model could do.

    Raises:
        InputError: a class is unknown or has no image to choose its weight by, or the costs cannot be used.
    """
    wanted = wanted_of(config.min_recall, config.costs, data.class_names)
    if wanted is None:
        return
    labels = data.labels("validation")
    if has_folds(config, data):
        labels = np.concatenate([data.labels("train"), labels])
    counts = np.bincount(labels, minlength=data.num_classes)
    for name in wanted.recalls:
        if not counts[data.class_names.index(name)]:
            where = "there is no validation part" if not len(labels) else "the validation part has none"
            raise InputError(
                f"The weight for a least recall of {shown(name)} is chosen by images of it that the model is "
                f"not trained on, and {where}: raise --validation-fraction, or omit --min-recall for it."
            )
