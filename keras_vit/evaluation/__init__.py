"""Metrics, calibration, out-of-distribution detection, and the statistics of a search.

Arrays and plain values in, numbers out: nothing here imports Keras or TensorFlow. scipy and scikit-learn are
imported by the functions that use them, so that importing this package stays fast.
"""

from keras_vit.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    softmax,
)
from keras_vit.evaluation.judge import judge
from keras_vit.evaluation.metrics import (
    classification_metrics,
    most_confident_mistakes,
    wilson_interval,
)

__all__ = [
    "classification_metrics",
    "expected_calibration_error",
    "fit_temperature",
    "judge",
    "most_confident_mistakes",
    "reliability_bins",
    "softmax",
    "wilson_interval",
]
