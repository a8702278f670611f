"""Prediction sets and referral as outputs of the answer model: `PredictionSets` in Keras operations."""

from typing import TYPE_CHECKING

from keras import ops

from keras_vit.evaluation.prediction_sets import TINY, PredictionSets

if TYPE_CHECKING:
    import keras


def set_outputs(
    logits: "keras.KerasTensor", usable: "keras.KerasTensor", sets: PredictionSets
) -> dict[str, "keras.KerasTensor"]:
    """The outputs `prediction_set`, `refer` and `log_odds` of `answer_model`.

    Args:
        logits: float32 (batch, classes), divided by the temperature.
        usable: bool (batch,), whether the image and its probabilities are as they should be.
        sets: the thresholds, which are constants of the graph.
    """
    odds = log_odds(logits)
    thresholds = ops.convert_to_tensor(sets.thresholds.astype("float32"))
    members = (odds >= thresholds) & ops.expand_dims(usable, -1)  # b k; NaN is in none
    if sets.refer_below is None:
        each = ops.cast(members, "int32")
        is_label = ops.one_hot(ops.argmax(odds, axis=-1), odds.shape[-1], dtype="int32")
        # The label is in the set, and nothing else: another class can be alone in it.
        sure = ops.equal(ops.sum(each * (3 * is_label - 1), axis=-1), 2)
    else:
        sure = (ops.max(odds, axis=-1) >= sets.refer_below) & usable
    return {
        "prediction_set": ops.cast(members, "int32"),
        "refer": 1 - ops.cast(sure, "int32"),
        "log_odds": odds,
    }


def log_odds(logits: "keras.KerasTensor") -> "keras.KerasTensor":
    """`evaluation.prediction_sets.log_odds` in float32: (batch, classes)."""
    away = logits - ops.max(logits, axis=-1, keepdims=True)
    each = ops.exp(away)
    is_largest = ops.one_hot(ops.argmax(logits, axis=-1), logits.shape[-1], dtype="float32")
    rest = ops.sum(each * (1 - is_largest), axis=-1, keepdims=True)
    others = rest + (1 - is_largest) * (1 - each)
    return away - ops.log(ops.maximum(others, float(TINY)))
