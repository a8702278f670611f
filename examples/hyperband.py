"""KerasTuner's Hyperband over the depth, heads and width of a ViT, with a build function of one's own.

    python examples/hyperband.py
    KERAS_BACKEND=jax python examples/hyperband.py

Change: `build`, and the images. `keras-vit search` does more: it continues after a crash, promotes trials
with their optimizer, and writes a report.
"""

import tempfile

import keras
import keras_tuner
import numpy as np

from keras_vit import ViT


def stripes(count):
    """Noisy images of 16x16 with stripes, and their classes: 0 for horizontal ones, 1 for vertical ones."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, count)
    rows = np.sin(np.arange(16))[None, :, None, None] * np.ones((count, 1, 16, 1))
    images = np.where(labels[:, None, None, None] == 0, rows, rows.transpose(0, 2, 1, 3))
    return (images + random.normal(0, 0.3, images.shape)).astype("float32"), labels


def build(hp):
    model = ViT(
        image_shape=(16, 16, 1),
        num_classes=2,
        patch_size=hp.Choice("patch_size", [4, 8]),
        depth=hp.Int("depth", 1, 2),
        num_heads=hp.Choice("num_heads", [2, 4]),
        dim=hp.Int("dim", 16, 32, step=16),
        dropout_rate=hp.Float("dropout_rate", 0.0, 0.2),
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(hp.Float("learning_rate", 3e-3, 1e-2, sampling="log")),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def main(folder):
    images, labels = stripes(128)
    tuner = keras_tuner.Hyperband(
        build,
        objective="val_accuracy",
        max_epochs=4,
        factor=2,
        seed=0,
        directory=folder,
        project_name="stripes",
    )
    tuner.search(images, labels, validation_split=0.25, batch_size=32, verbose=0)
    (best,) = tuner.get_best_hyperparameters(1)
    (model,) = tuner.get_best_models(1)
    print({name: best.get(name) for name in ("patch_size", "depth", "num_heads", "dim")})
    print(f"accuracy {model.evaluate(images[96:], labels[96:], verbose=0)[1]:.1%}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
