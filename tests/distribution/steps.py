"""Trains 20 steps on given devices, in a new process: python -m tests.distribution.steps JSON.

The JSON: {"cases": [{"out": file, "distribute": {...}, "optimizer": {...}, "model": {...}}, ...]}.
For each case the chief writes the weights, the loss after each step, and the results of evaluate and predict.
"""

import json
import sys

import keras
import numpy as np

import keras_vit
from keras_vit.training.layerwise import LayerwiseAdam, shares_of
from keras_vit.training.recipe import Recipe
from keras_vit.training.unfreezing import choose_trained

STEPS, BATCH, EVALUATION_IMAGES = 20, 8, 21  # not divisible by the batch size or the number of devices

MODEL = {"patch_size": 4, "dim": 16, "depth": 1, "num_heads": 4, "stem": "conv"}


def images():
    random = np.random.default_rng(0)
    count = STEPS * BATCH
    pixels = random.random((count, 16, 16, 1)).astype("float32")
    return pixels, np.eye(3, dtype="float32")[random.integers(0, 3, count)]


def make_optimizer(model, sgd=False, scaled=False, layerwise=False, **settings):
    if scaled:
        return keras.optimizers.LossScaleOptimizer(
            make_optimizer(model, sgd, **settings), initial_scale=256.0
        )
    averaged = {"use_ema": True, "ema_momentum": 0.9, **settings}
    if layerwise:  # the embeddings begin in step 10
        recipe = Recipe(layer_decay=0.5, unfreeze_every=5 / STEPS)
        return LayerwiseAdam(1e-3, shares=shares_of(model, recipe, STEPS), **averaged)
    if sgd:  # its steps grow with the gradient; steps of Adam hardly do
        return keras.optimizers.SGD(0.1, **averaged)
    return keras.optimizers.AdamW(1e-3, weight_decay=0.05, **averaged)


class Losses(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(float(logs["loss"]))


def train(case):
    import tensorflow as tf

    distribution = keras_vit.distribute(**case.get("distribute", {}))
    keras.utils.set_random_seed(1)
    with distribution:
        model = keras_vit.ViT(
            image_shape=(16, 16, 1),
            num_classes=3,
            **{**MODEL, **case.get("model", {})},
        )
        choose_trained(model, Recipe(**case.get("recipe", {})))
        model.compile(
            make_optimizer(model, **case.get("optimizer", {})),
            keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
            metrics=["accuracy"],
            **case.get("compile", {}),
        )
    pixels, labels = images()
    batches = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(BATCH, drop_remainder=True)
    evaluation_data = tf.data.Dataset.from_tensor_slices((pixels, labels)).take(EVALUATION_IMAGES).batch(10)
    losses = Losses()
    history = model.fit(
        batches, validation_data=evaluation_data, shuffle=False, verbose=0, callbacks=[losses], epochs=1
    ).history
    averages = distribution.values(model.optimizer.variables)  # evaluate() on JAX reuses their memory
    evaluated = model.evaluate(evaluation_data, verbose=0)
    predicted = model.predict(evaluation_data, verbose=0)
    weights = model.get_weights()
    if distribution.is_chief:
        np.savez(
            case["out"],
            devices=distribution.num_devices,
            losses=losses.found,
            history=[history[name][-1] for name in sorted(history)],
            evaluated=evaluated,
            predicted=predicted,
            **{f"weight_{i}": value for i, value in enumerate(weights)},
            **{f"optimizer_{i}": value for i, value in enumerate(averages)},
        )


if __name__ == "__main__":
    for one in json.loads(sys.argv[1])["cases"]:
        train(one)
