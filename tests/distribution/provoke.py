"""Tries the cases that two devices must refuse, in a new process: python -m tests.distribution.provoke FILE.

Writes {case: message} as JSON. A case that is not refused has the message null.
"""

import functools
import json
import sys
import tempfile

import keras
import numpy as np

import keras_vit

BACKEND = keras.backend.backend()
TWO = {} if BACKEND == "torch" else {"devices": 2}
CASES = {}
OF_TENSORFLOW: list[str] = []
OF_TORCH = ["train_step_with_another_optimizer"]


def case(function):
    CASES[function.__name__] = function
    return function


def build(**options):
    sizes = dict(patch_size=4, dim=8, depth=1, num_heads=2, mlp_dim=16)
    return keras_vit.ViT(image_shape=(8, 8, 1), num_classes=3, **{**sizes, **options})


def by_hand():
    return keras.Sequential(
        [
            keras_vit.PatchEmbed(patch_size=4, dim=8),
            keras_vit.EncoderBlock(num_heads=2, mlp_dim=16),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3),
        ]
    )


def without_our_layers(*more):
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4), *more, keras.layers.Dense(3)])


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
def xla_for_another_model():
    fit(batches(4, drop_remainder=True), model=compiled(model=without_our_layers(), jit_compile=True))


@inside
def partial_batch_for_another_model():
    fit(batches(4, drop_remainder=False), model=compiled(model=without_our_layers()))


@inside
def batch_norm_of_keras():
    model = without_our_layers(keras.layers.BatchNormalization(name="norm"))
    fit(batches(4, drop_remainder=True), model=compiled(model=model))


@inside
def train_step_with_another_optimizer():
    class Model(keras.Sequential):
        def train_step(self, data):
            import torch

            x, y = data
            loss = keras.ops.mean(keras.ops.square(self(x) - y))
            loss.backward()
            share = torch.distributed.get_rank() + 1
            for weight in self.trainable_weights:
                weight.assign(weight - 0.1 * share * weight.value.grad)
            return {"loss": loss}

    fit(batches(4, drop_remainder=True), model=compiled(model=Model(without_our_layers().layers)))


def loader(with_sampler=True):
    import torch

    images = torch.utils.data.TensorDataset(torch.zeros(16, 8, 8, 1), torch.eye(3)[[0, 1] * 8])
    sampler = torch.utils.data.DistributedSampler(images) if with_sampler else None
    return torch.utils.data.DataLoader(images, batch_size=4, sampler=sampler)


def of_torch(function):
    OF_TORCH.append(function.__name__)
    return inside(function)


@of_torch
def validation_by_a_sampler():
    fit(validation_data=loader())


@of_torch
def evaluate_by_a_sampler():
    compiled().evaluate(loader(), verbose=0)


@of_torch
def predict_by_a_sampler():
    compiled().predict(loader(), verbose=0)


@of_torch
def loader_without_a_sampler():
    fit(loader(with_sampler=False))


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
        fit(model=compiled(model=model))


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
def layers_in_central_storage():
    import tensorflow as tf

    with tf.distribute.experimental.CentralStorageStrategy(["CPU:0"], "CPU:0").scope():
        fit(model=compiled(model=by_hand()))


@functools.cache
def own_strategy():
    """One for all cases: two in a process count their collectives from the same number."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def in_own_strategy(function):
    """Runs a case in the scope of a strategy of the user's."""

    def run():
        with own_strategy().scope():
            function()

    run.__name__ = function.__name__
    OF_TENSORFLOW.append(function.__name__)
    return case(run)


@in_own_strategy
def own_mirrored():
    build()


@in_own_strategy
def own_mirrored_and_distribute():
    with keras_vit.distribute("data", **TWO):
        pass


@in_own_strategy
def own_mirrored_with_xla():
    fit(model=compiled(model=by_hand(), jit_compile=True))


@in_own_strategy
def own_mirrored_with_gradient_accumulation():
    fit(model=compiled(keras.optimizers.AdamW(gradient_accumulation_steps=2), by_hand()))


@in_own_strategy
def own_mirrored_with_batches_of_5():
    fit(batch_size=5)


@in_own_strategy
def own_mirrored_with_validation_split():
    fit(validation_split=0.3)


@in_own_strategy
def copies_in_own_mirrored():
    """`clone_model`, and `load_model` of a compiled model with the state of its optimizer."""
    model = compiled()
    fit(model=model)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        fit(model=keras.saving.load_model(f"{folder}/model.keras"))
    fit(model=compiled(model=keras.models.clone_model(model)))


@case
def keras_tuner_in_own_mirrored():
    import keras_tuner

    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(
            lambda hp: compiled(model=build(depth=hp.Int("depth", 1, 2)), metrics=["accuracy"]),
            "val_accuracy",
            max_trials=1,
            directory=folder,
            distribution_strategy=own_strategy(),
        )
        x, y = np.zeros((16, 8, 8, 1), "float32"), np.eye(3, dtype="float32")[[0, 1] * 8]
        tuner.search(x, y, validation_data=(x, y), verbose=0)
        if not tuner.oracle.trials or next(iter(tuner.oracle.trials.values())).status != "COMPLETED":
            raise keras_vit.InputError("the trial has failed")


@in_own_strategy
def another_model_in_own_mirrored():
    """Without our layers it is Keras's affair."""
    model = compiled(keras.optimizers.AdamW(global_clipnorm=1.0), without_our_layers())
    fit(model=model, batch_size=4)
    if hasattr(model, "distribution"):
        raise keras_vit.InputError("it was placed")


@case
def model_in_own_mirrored_from_outside():
    model = by_hand()
    model.build((None, 8, 8, 1))
    with own_strategy().scope():
        fit(model=compiled(model=model))


OF_TENSORFLOW += [
    "central_storage",
    "layers_in_central_storage",
    "keras_tuner_in_own_mirrored",
    "model_in_own_mirrored_from_outside",
]


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
        for name in OF_TENSORFLOW:
            del CASES[name]
    if BACKEND != "torch":
        for name in OF_TORCH:
            del CASES[name]
    if BACKEND == "jax":
        del CASES["keras_distribution"]  # it works on JAX
    found = {}
    for name, function in CASES.items():
        print(name, flush=True)  # the last one, if it does not end
        found[name] = message(function)
    if distribution.is_chief:
        with open(sys.argv[1], "w") as file:
            json.dump(found, file)
