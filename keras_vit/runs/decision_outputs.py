"""The class that a run names, as outputs of the answer model: `DecisionRule` in Keras operations."""

from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from keras_vit.evaluation.decision_rule import TIE, DecisionRule

if TYPE_CHECKING:
    import keras

FEW = 64
"""Classes up to which costs are summed elementwise: GPUs compute products of matrices with 10 bits."""


def named_class(probabilities: "keras.KerasTensor", rule: DecisionRule) -> "keras.KerasTensor":
    """One 1 per image, at the class that the rule names: float32 (batch, classes).

    Without `ops.argmax`, which on TensorFlow has an operation that ONNX lacks.

    Args:
        probabilities: float32 (batch, classes), calibrated.
        rule: whose numbers are constants of the graph.
    """
    # As arrays of numpy: tensors made here would be inputs of an ONNX file, not constants in it. Scaled, so
    # that no sum leaves float32.
    if rule.costs is None:
        scores = probabilities * (rule.weights / rule.weights.max()).astype("float32")
        near = scores >= ops.max(scores, axis=-1, keepdims=True) * (1 - TIE)
    else:
        table = (rule.table / rule.table.max()).astype("float32")
        if len(table) <= FEW:
            scores = ops.sum(ops.expand_dims(probabilities, -1) * table, axis=1)  # b k k to b k
        else:
            scores = ops.matmul(probabilities, table)
        near = scores <= ops.min(scores, axis=-1, keepdims=True) * (1 + TIE)
    likely = ops.where(near, probabilities, -1.0)
    numbers = np.arange(probabilities.shape[-1], dtype="float32")
    first = ops.min(
        ops.where(likely >= ops.max(likely, axis=-1, keepdims=True), numbers, float(numbers.size)),
        axis=-1,
        keepdims=True,
    )
    return ops.cast(ops.equal(first, numbers), "float32")
