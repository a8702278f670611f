"""The outputs of an `answer_model` on several labels per image."""

import keras
import numpy as np
from keras import ops


def label_outputs(
    probabilities: keras.KerasTensor, usable: keras.KerasTensor, thresholds: np.ndarray
) -> dict[str, keras.KerasTensor]:
    """`labels` and `thresholds` of an `answer_model`.

    Args:
        probabilities: float32 (batch, classes).
        usable: bool (batch,), whether an image has an answer at all.
        thresholds: float32 (classes,).
    """
    needed = ops.zeros_like(probabilities) + thresholds.astype("float32")  # b k
    has = (probabilities >= needed) & usable[:, None]
    return {"labels": ops.cast(has, "int32"), "thresholds": needed}
