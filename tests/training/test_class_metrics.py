"""Keras metrics that count each class, against scikit-learn."""

import numpy as np
import pytest
from keras import ops
from sklearn.metrics import balanced_accuracy_score, f1_score

from keras_vit.training.class_metrics import BalancedAccuracy, MacroF1


@pytest.mark.parametrize(
    ("metric", "oracle"),
    [
        (BalancedAccuracy, balanced_accuracy_score),
        (MacroF1, lambda labels, named: f1_score(labels, named, average="macro")),
    ],
)
def test_against_scikit_learn(metric, oracle):
    rng = np.random.default_rng(0)
    labels, logits = (
        rng.integers(0, 3, 50),
        rng.normal(size=(50, 4)) - 9 * np.eye(4)[3],
    )  # a class without images
    found = metric(4)
    for part in (slice(0, 20), slice(20, 50)):
        found.update_state(ops.one_hot(labels[part], 4), ops.convert_to_tensor(logits[part]))
    assert float(found.result()) == pytest.approx(oracle(labels, logits.argmax(axis=1)))
    again = metric.from_config(found.get_config())
    assert again.num_classes == 4
