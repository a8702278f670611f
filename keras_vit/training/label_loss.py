"""Loss and metrics of Keras for images with several labels: logits in, each label by itself."""

from typing import Any

import keras
from keras import ops

from keras_vit.training.class_metrics import mean_f1


@keras.saving.register_keras_serializable("keras_vit")
class AsymmetricLoss(keras.losses.Loss):
    """Binary cross-entropy that looks away from labels which an image clearly does not have.

    Where images have few of many labels, most decisions are easy ones against a label, and together they
    outweigh the others. Their share falls with a power of the probability, and to nothing below a margin.

    Reference: T. Ridnik et al., "Asymmetric loss for multi-label classification", ICCV 2021,
    https://arxiv.org/abs/2009.14119, with the defaults of the paper.

    Args:
        gamma_negative: the power for labels that the image does not have.
        gamma_positive: the power for those that it has.
        margin: a probability up to this costs nothing where the image does not have the label.
    """

    def __init__(
        self,
        gamma_negative: float = 4.0,
        gamma_positive: float = 0.0,
        margin: float = 0.05,
        name: str = "asymmetric_loss",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.gamma_negative, self.gamma_positive, self.margin = gamma_negative, gamma_positive, margin

    def call(self, y_true, y_pred):
        logits = ops.cast(y_pred, "float32")
        target = ops.cast(y_true, "float32")
        p = ops.sigmoid(logits)
        shifted = ops.maximum(p - self.margin, 0.0)
        having = ops.power(1 - p, self.gamma_positive) * ops.log_sigmoid(logits)
        lacking = ops.power(shifted, self.gamma_negative) * ops.log(ops.maximum(1 - shifted, 1e-8))
        return -ops.mean(target * having + (1 - target) * lacking, axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "gamma_negative": self.gamma_negative,
            "gamma_positive": self.gamma_positive,
            "margin": self.margin,
        }


@keras.saving.register_keras_serializable("keras_vit")
class LabelF1(keras.metrics.Metric):
    """The mean F1 of the labels that occur as a target or as an answer; an image has those of logits above 0.

    Args:
        num_labels: of targets and logits.
    """

    def __init__(self, num_labels: int, name: str = "macro_f1", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.num_labels = num_labels
        self.right, self.both = (
            self.add_variable((num_labels,), "zeros", name=part) for part in ("right", "both")
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        true, named = (ops.cast(found, self.right.dtype) for found in (y_true > 0.5, y_pred > 0))  # b k
        self.right.assign_add(ops.sum(true * named, axis=0))
        self.both.assign_add(ops.sum(true + named, axis=0))

    def result(self):
        return mean_f1(self.right, self.both)

    def get_config(self):
        return {**super().get_config(), "num_labels": self.num_labels}
