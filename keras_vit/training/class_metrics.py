"""Metrics of Keras that count each class, with the rules of `classification_metrics`."""

from typing import Any

import keras
from keras import ops


class _ByClass(keras.metrics.Metric):
    """Counts, for each class, the images that have it, that are named it, and both."""

    def __init__(self, num_classes: int, name: str, **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.right, self.named, self.total = (
            self.add_variable((num_classes,), "zeros", name=part) for part in ("right", "named", "total")
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        true, named = (
            ops.one_hot(ops.argmax(values, axis=-1), self.num_classes, dtype=self.right.dtype)
            for values in (y_true, y_pred)
        )  # b k
        for variable, counted in ((self.right, true * named), (self.named, named), (self.total, true)):
            variable.assign_add(ops.sum(counted, axis=0))

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


@keras.saving.register_keras_serializable("keras_vit")
class BalancedAccuracy(_ByClass):
    """The mean recall of the classes that have images. Targets are one-hot; of mixed ones the largest counts.

    Args:
        num_classes: of targets and logits.
    """

    def __init__(self, num_classes: int, name: str = "balanced_accuracy", **kwargs: Any):
        super().__init__(num_classes, name, **kwargs)

    def result(self):
        return _mean(self.right / ops.maximum(self.total, 1), self.total > 0)


@keras.saving.register_keras_serializable("keras_vit")
class MacroF1(_ByClass):
    """The mean F1 of the classes that occur as a target or as an answer.

    Args:
        num_classes: of targets and logits.
    """

    def __init__(self, num_classes: int, name: str = "macro_f1", **kwargs: Any):
        super().__init__(num_classes, name, **kwargs)

    def result(self):
        return mean_f1(self.right, self.total + self.named)


def mean_f1(right, both):
    """The mean F1 of the classes that occur.

    Args:
        right: (classes,), images that have the class and are named it.
        both: (classes,), images that have it, and again those that are named it.
    """
    return _mean(2 * right / ops.maximum(both, 1), both > 0)


def _mean(values, occurs):
    occurs = ops.cast(occurs, values.dtype)
    return ops.sum(values * occurs) / ops.maximum(ops.sum(occurs), 1)
