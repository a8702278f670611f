"""A trained model judged: how often it is right, how far to believe it, and the page that says so.

Pure functions of numpy arrays, which know nothing of Keras (`verbs`, not imported here, asks a run);
scikit-learn, matplotlib and jinja2 are imported by the functions that use them.
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
