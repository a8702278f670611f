import keras
import numpy as np

from keras_vit.training.label_loss import AsymmetricLoss, LabelF1

TARGETS = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], "float32")
LOGITS = np.array([[2, -4, 0.5], [-1, 3, -0.2], [1, 0.1, -2], [-3, 0.4, -1]], "float32")


def test_the_asymmetric_loss_is_that_of_the_paper():
    p = 1 / (1 + np.exp(-LOGITS.astype("float64")))
    shifted = np.maximum(p - 0.05, 0)
    expected = -(TARGETS * np.log(p) + (1 - TARGETS) * shifted**4 * np.log(1 - shifted)).mean()
    loss = AsymmetricLoss()
    np.testing.assert_allclose(float(loss(TARGETS, LOGITS)), expected, rtol=1e-5)
    again = AsymmetricLoss.from_config(loss.get_config())
    np.testing.assert_allclose(float(again(TARGETS, LOGITS)), expected, rtol=1e-5)


def test_without_focus_and_margin_it_is_the_binary_cross_entropy():
    plain = keras.losses.BinaryCrossentropy(from_logits=True)
    found = AsymmetricLoss(gamma_negative=0, gamma_positive=0, margin=0)
    np.testing.assert_allclose(float(found(TARGETS, LOGITS)), float(plain(TARGETS, LOGITS)), rtol=1e-4)


def test_the_mean_f1_of_labels():
    from sklearn.metrics import f1_score

    metric = LabelF1(3)
    for rows in (slice(0, 1), slice(1, 4)):
        metric.update_state(TARGETS[rows], LOGITS[rows])
    expected = f1_score(TARGETS, LOGITS > 0, average="macro", zero_division=0)
    np.testing.assert_allclose(float(metric.result()), expected, rtol=1e-5)
