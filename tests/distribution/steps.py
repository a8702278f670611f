"""Trains 20 steps on given devices, in a new process: python -m tests.distribution.steps JSON.

The JSON: {"cases": [{"out": file, "distribute": {...}, "optimizer": {...}, "model": {...}}, ...]}. With "own"
the devices are those that a user sets up with the backend, "build" is a function below, "rest" leaves images
of the last batch out, "overflow" makes the gradient of one image infinite in the second half of a batch,
"data" is what `fit` gets instead of a dataset, "split" has the number of parts of each kernel (JAX), and
"loop" trains without `fit`.
For each case the chief writes the weights, the loss after each step, and the results of evaluate and predict.
"""

import contextlib
import functools
import json
import os
import sys

import keras
import numpy as np

import keras_vit
from keras_vit.distribution import distribution_of
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


def vit(options):
    return keras_vit.ViT(image_shape=(16, 16, 1), num_classes=3, **{**MODEL, **options})


def in_a_sequential(options):
    return keras.Sequential(
        [keras.Input((16, 16, 1)), keras.layers.Rescaling(2.0, offset=-1.0), vit(options)]
    )


def new_head(options):
    features = vit(options).extractor("features")
    return keras.Model(features.input, keras.layers.Dense(3)(features.output))


def by_hand(options):
    return keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            keras_vit.PatchEmbed(patch_size=4, dim=16),
            keras_vit.PositionEmbedding(grid=(4, 4), use_cls=False),
            keras_vit.EncoderBlock(num_heads=4, mlp_dim=64, **options),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3),
        ]
    )


class Subclassed(keras.Model):
    """With a `train_step` of its own."""

    def __init__(self, options):
        super().__init__()
        self.parts = {"layers": by_hand(options).layers}
        self(np.zeros((1, 16, 16, 1), "float32"))

    def call(self, inputs):
        for layer in self.parts["layers"]:
            inputs = layer(inputs)
        return inputs

    def train_step(self, *data):
        return super().train_step(*data)


BUILDERS = {builder.__name__: builder for builder in (vit, in_a_sequential, new_head, by_hand, Subclassed)}


@functools.cache
def own_strategy():
    """One for all cases: two in a process count their collectives from the same number."""
    import tensorflow as tf

    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    with contextlib.suppress(RuntimeError):  # a case before this one has divided it
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def own_sharding(parts):
    """The user's own two devices, or 2 x 2 that split the MLPs."""
    names = keras.distribution.list_devices("cpu")[: 2 * parts]
    if parts == 1:
        return keras.distribution.DataParallel(devices=names)
    mesh = keras.distribution.DeviceMesh((2, parts), ("rows", "columns"), names)
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*mlp/expand/kernel"] = (None, "columns")
    layouts[".*mlp/contract/kernel"] = ("columns", None)
    return keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="rows")


class Batches(keras.utils.PyDataset):
    def __init__(self, pixels, labels):
        super().__init__()
        self.pixels, self.labels = pixels, labels

    def __len__(self):
        return -(-len(self.pixels) // BATCH)

    def __getitem__(self, number):
        own = slice(number * BATCH, (number + 1) * BATCH)
        return self.pixels[own], self.labels[own]


def given_to_fit(kind, pixels, labels):
    """The arguments of `fit`."""
    if kind == "arrays":
        return {"x": pixels, "y": labels, "batch_size": BATCH}
    numbered = Batches(pixels, labels)
    if kind == "PyDataset":
        return {"x": numbered}
    if kind == "generator":
        return {"x": (numbered[i] for i in range(len(numbered))), "steps_per_epoch": len(numbered)}
    import torch

    return {"x": torch.utils.data.DataLoader(list(zip(pixels, labels, strict=True)), batch_size=BATCH)}


@contextlib.contextmanager
def devices(case):
    """The devices of a case; on JAX, the user's own ones are not a scope."""
    backend = keras.backend.backend()
    if not case.get("own"):
        with keras_vit.distribute(**case.get("distribute", {})):
            yield
    elif backend == "tensorflow":
        with own_strategy().scope():
            yield
    elif backend == "jax":
        keras.distribution.set_distribution(own_sharding(case.get("split", 1)))
        yield
    else:
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group("gloo")
        yield


def train(case):
    import tensorflow as tf

    # On torch each process draws its own first weights. Those of the chief must be those of all.
    keras.utils.set_random_seed(1 + int(os.environ.get("RANK", 0)))
    with devices(case):
        model = BUILDERS[case.get("build", "vit")](case.get("model", {}))
        if "recipe" in case:
            choose_trained(model, Recipe(**case["recipe"]))
        model.compile(
            make_optimizer(model, **case.get("optimizer", {})),
            keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
            metrics=["accuracy"],
            **case.get("compile", {}),
        )
    pixels, labels = images()
    if case.get("overflow"):
        pixels[3 * BATCH - 1] = np.nan
    count = len(pixels) - case.get("rest", 0)
    rows = tf.data.Dataset.from_tensor_slices((pixels, labels)).take(count)
    batches = rows.batch(BATCH, drop_remainder="rest" not in case)
    evaluation_data = rows.take(EVALUATION_IMAGES).batch(10)
    if case.get("loop"):
        loop(model, batches)
    losses = Losses()
    history = {}
    if not case.get("loop"):
        given = {"x": batches}
        if "data" in case:
            given = given_to_fit(case["data"], pixels[:count], labels[:count])
        history = model.fit(
            **given, validation_data=evaluation_data, shuffle=False, verbose=0, callbacks=[losses], epochs=1
        ).history
        if case.get("split"):  # whole kernels would be right too
            shards = [not one.value.sharding.is_fully_replicated for one in model.weights]
            assert sum(shards) == 2, shards
    distribution = distribution_of(model)
    averages = distribution.values(model.optimizer.variables)  # evaluate() on JAX reuses their memory
    evaluated = model.evaluate(evaluation_data, verbose=0)
    predicted = model.predict(evaluation_data, verbose=0)
    weights = model.get_weights()
    if case.get("own") and keras.backend.backend() == "jax":
        keras.distribution.set_distribution(None)
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


def loop(model, batches):
    """A loop of torch's own, with DistributedDataParallel where there are several processes."""
    import torch
    import torch.distributed as dist

    count, number, wrapped = 1, 0, model
    if dist.is_initialized():
        count, number = dist.get_world_size(), dist.get_rank()
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1)
    for pixels, labels in batches.as_numpy_iterator():
        own = slice(len(pixels) // count * number, len(pixels) // count * (number + 1))
        logits = wrapped(torch.from_numpy(pixels[own]), training=True)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[own]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    for one in json.loads(sys.argv[1])["cases"]:
        train(one)
