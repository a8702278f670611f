"""Whether training on one GPU gives what training without the trick gives: 20 steps from the same weights.

    KERAS_BACKEND=torch python -m benchmarks.gpu_checks   the compiled step, and which attention kernel runs
    KERAS_BACKEND=jax python -m benchmarks.gpu_checks     keras.distribution.DataParallel over one GPU

Each line of the answer is JSON. The difference is that of all weights after 20 steps, relative to the way
that they went.
"""

import json

import keras
import numpy as np

from keras_vit.distribution.precision import precision_for
from keras_vit.model.vit import ViT
from keras_vit.training.optimizer import compile_model
from keras_vit.training.recipe import Recipe

STEPS, BATCH = 20, 64


def trained(precision: str, compiled: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """All weights before and after."""
    keras.utils.set_random_seed(0)
    model = ViT.from_variant("defect/4", image_shape=(28, 28, 1), num_classes=6, dtype=precision)
    compile_model(model, Recipe(precision=precision, epochs=5, xla=compiled or None), STEPS)
    before = np.concatenate([np.ravel(value) for value in model.get_weights()])
    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS * BATCH, 28, 28, 1)).astype("float32")
    y = np.eye(6, dtype="float32")[random.integers(6, size=len(x))]
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    return before, np.concatenate([np.ravel(value) for value in model.get_weights()])


def compare(name: str, precision: str, plain: tuple, other: tuple) -> None:
    way = np.linalg.norm(plain[1] - plain[0])
    row = {
        "check": name,
        "precision": precision,
        "same_start": bool((plain[0] == other[0]).all()),
        "difference": float(np.linalg.norm(plain[1] - other[1]) / way),
    }
    print(json.dumps(row), flush=True)


def on_torch() -> None:
    import torch

    for precision in ("float32", "mixed_bfloat16"):
        plain = trained(precision)
        compare("the same again", precision, plain, trained(precision))
        compare("compiled step", precision, plain, trained(precision, compiled=True))
    model = ViT.from_variant("B/16", image_shape=(224, 224, 3), num_classes=6, dtype="mixed_bfloat16")
    x = keras.ops.zeros((8, 224, 224, 3))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        model(x, training=False)
        torch.cuda.synchronize()
    kernels = {event.key for event in profile.key_averages()}
    found = sorted(key[:80] for key in kernels if "attention" in key.lower() or "flash" in key.lower())
    print(json.dumps({"check": "attention kernels", "found": found}), flush=True)


def on_jax() -> None:
    import jax

    for precision in ("float32", "mixed_bfloat16"):
        plain = trained(precision)
        compare("the same again", precision, plain, trained(precision))
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=["gpu:0"]))
        compare("DataParallel over one GPU", precision, plain, trained(precision))
        keras.distribution.set_distribution(None)
    print(json.dumps({"check": "devices", "found": str(jax.devices())}), flush=True)


def main() -> None:
    print(json.dumps({"check": "precision auto", "found": precision_for("auto")}), flush=True)
    on_torch() if keras.backend.backend() == "torch" else on_jax()


if __name__ == "__main__":
    main()
