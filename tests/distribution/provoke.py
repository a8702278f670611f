"""Tries the cases that two devices must refuse, in a new process: python -m tests.distribution.provoke FILE.

Writes {case: message} as JSON. A case that is not refused has the message null.
"""

import json
import sys

import keras
import numpy as np

import keras_vit

BACKEND = keras.backend.backend()
TWO = {} if BACKEND == "torch" else {"devices": 2}
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def build(**options):
    sizes = dict(patch_size=4, dim=8, depth=1, num_heads=2, mlp_dim=16)
    return keras_vit.ViT(image_shape=(8, 8, 1), num_classes=3, **{**sizes, **options})


def compiled(optimizer="adamw", model=None, **options):
    model = model or build()
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(**{"optimizer": optimizer, "loss": loss, **options})
    return model


def fit(x=None, y=None, model=None, **options):
    x = np.zeros((16, 8, 8, 1), "float32") if x is None else x
    y = np.eye(3, dtype="float32")[[0, 1] * 8] if y is None and isinstance(x, np.ndarray) else y
    (model or compiled()).fit(x, y, verbose=0, shuffle=False, **options)


def batches(size, drop_remainder, count=16):
    import tensorflow as tf

    images, labels = np.zeros((count, 8, 8, 1), "float32"), np.eye(3, dtype="float32")[[0] * count]
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(size, drop_remainder=drop_remainder)


def inside(function):
    """Runs a case on the two devices of this process."""

    def run():
        with keras_vit.distribute("data", **TWO):
            function()

    run.__name__ = function.__name__
    return case(run)


@inside
def xla():
    compiled(jit_compile=True)


@inside
def steps_per_execution():
    compiled(steps_per_execution=2)


@inside
def gradient_accumulation():
    compiled(keras.optimizers.AdamW(gradient_accumulation_steps=2))


@inside
def sum_of_losses():
    compiled(loss=keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum"))


@inside
def weighted_mean_of_losses():
    compiled(loss=keras.losses.CategoricalCrossentropy(True, reduction="mean_with_sample_weight"))


@inside
def scaled_loss():
    compiled(keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW()))


@inside
def partial_batch_of_a_dataset():
    fit(batches(4, drop_remainder=False))


@inside
def indivisible_batch():
    fit(batches(3, drop_remainder=True))


@inside
def partial_batch_of_arrays():
    fit(batch_size=6)


@inside
def indivisible_batch_of_arrays():
    fit(batch_size=5)


@inside
def validation_split():
    fit(batches(4, drop_remainder=True), validation_split=0.5)


@inside
def a_generator():
    fit(iter([]))


@inside
def within_another():
    with keras_vit.distribute("data", **TWO):
        pass


@case
def model_from_outside():
    model = build()
    with keras_vit.distribute("data", **TWO):
        compiled(model=model)


@case
def compiled_model_from_outside():
    model = compiled()
    with keras_vit.distribute("data", **TWO):
        fit(model=model)


@case
def optimizer_from_outside():
    optimizer = keras.optimizers.AdamW()
    with keras_vit.distribute("data", **TWO):
        compiled(optimizer)


@case
def split_model():
    with keras_vit.distribute("model", **TWO):
        compiled()


@case
def split_model_without_biases():
    with keras_vit.distribute("model", **TWO):
        compiled(model=build(qkv_bias=False))


@case
def rule_without_a_match():
    with keras_vit.distribute("model", **TWO, layout={".*expert.*": (None, "model")}):
        build()


@case
def indivisible_kernel():
    with keras_vit.distribute("model", **TWO):
        build(mlp_dim=15)


@case
def indivisible_devices():
    keras_vit.distribute("model", 2, model_devices=3)


@case
def too_many_devices():
    keras_vit.distribute("data", devices=64)


@case
def keras_distribution():
    before = keras.distribution.distribution()
    mesh = keras.distribution.DeviceMesh((1,), ("batch",), ["cpu:0"])
    keras.distribution.set_distribution(keras.distribution.DataParallel(device_mesh=mesh))
    try:
        build()
    finally:
        keras.distribution.set_distribution(before)


def in_strategy(make):
    with make().scope():
        build()


@case
def central_storage():
    import tensorflow as tf

    in_strategy(lambda: tf.distribute.experimental.CentralStorageStrategy(["CPU:0"], "CPU:0"))


@case
def own_mirrored():
    import tensorflow as tf

    in_strategy(lambda: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))


def message(function):
    try:
        function()
    except keras_vit.InputError as error:
        return str(error)
    return None


if __name__ == "__main__":
    with keras_vit.distribute("data", **TWO) as distribution:  # the backend now knows the devices
        pass
    if BACKEND != "tensorflow":
        del CASES["central_storage"], CASES["own_mirrored"]
    if BACKEND == "jax":
        del CASES["keras_distribution"]  # it works on JAX
    found = {name: message(function) for name, function in CASES.items()}
    if distribution.is_chief:
        with open(sys.argv[1], "w") as file:
            json.dump(found, file)
