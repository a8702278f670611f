"""Prediction sets and referral as outputs of the answer model: `PredictionSets` in Keras operations."""

from typing import TYPE_CHECKING

from keras import ops

from keras_vit.evaluation.prediction_sets import TINY, PredictionSets

if TYPE_CHECKING:
    import keras


def set_outputs(
    logits: "keras.KerasTensor",
    usable: "keras.KerasTensor",
    sets: PredictionSets,
    named: "keras.KerasTensor | None" = None,
) -> dict[str, "keras.KerasTensor"]:
    """The outputs `prediction_set`, `refer` and `log_odds` of `answer_model`.

    Args:
        logits: float32 (batch, classes), divided by the temperature.
        usable: bool (batch,), whether the image and its probabilities are as they should be.
        sets: the thresholds, which are constants of the graph.
        named: float32 (batch, classes), a 1 at the class that is the label; `None` for the likeliest.
    """
    odds = log_odds(logits)
    # As an array of numpy: a tensor made here would be an input of an ONNX file, not a constant in it.
    members = ops.greater_equal(odds, sets.thresholds.astype("float32")) & ops.expand_dims(
        usable, -1
    )  # b k; NaN is in none
    largest = ops.max(odds, axis=-1, keepdims=True)
    if sets.refer_below is None:
        # The label is in the set, and nothing else: another class can be alone in it.
        is_label = ops.cast(ops.equal(odds, largest) if named is None else named, "int32")
        sure = ops.equal(ops.sum(ops.cast(members, "int32") * (3 * is_label - 1), axis=-1), 2)
    else:
        of_label = largest[:, 0] if named is None else ops.sum(ops.where(named > 0, odds, 0.0), axis=-1)
        sure = (of_label >= sets.refer_below) & usable
    return {
        "prediction_set": ops.cast(members, "int32"),
        "refer": 1 - ops.cast(sure, "int32"),
        "log_odds": odds,
    }


def log_odds(logits: "keras.KerasTensor") -> "keras.KerasTensor":
    """`evaluation.prediction_sets.log_odds` in float32: (batch, classes).

    Without `ops.argmax`, which on TensorFlow has an operation that ONNX lacks.
    """
    away = logits - ops.max(logits, axis=-1, keepdims=True)
    each = ops.exp(away)
    is_largest = ops.cast(ops.equal(away, 0), "float32")
    rest = ops.sum(each * (1 - is_largest), axis=-1, keepdims=True)
    count = ops.sum(is_largest, axis=-1, keepdims=True)  # 1, but for ties
    others = rest + (count - each)  # b k; the bracket is exactly 0 for the largest
    return away - ops.log(ops.maximum(others, float(TINY)))
