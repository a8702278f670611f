"""Trains on what `fit` takes, in a new process: python -m tests.distribution.kinds FILE.

On the two devices that a user sets up with the backend, and on one. Writes {kind: largest difference of the
weights, validation results, and results of evaluate and predict} as JSON, and how many devices `distribute()`
counts.
"""

import contextlib
import json
import sys

import keras
import numpy as np

from keras_vit import EncoderBlock, MeanPool, PatchEmbed, distribute
from keras_vit.distribution import distribution_of
from keras_vit.errors import InputError

COUNT, BATCH = 22, 6  # batches of 6, 6, 6 and 4
SIZES = (5, 6, 1, 7)
STRATEGY = []
random = np.random.default_rng(0)
X = random.normal(size=(COUNT, 8, 8, 1)).astype("float32")
Y = random.integers(0, 3, COUNT)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return -(-COUNT // BATCH)

    def __getitem__(self, number):
        rows = slice(number * BATCH, (number + 1) * BATCH)
        return X[rows], Y[rows]


class Nothing(Batches):
    def __len__(self):
        return 0


def dataset(size=BATCH):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(size)


def distributed():
    """As the user's strategy distributes it; on one device a dataset."""
    return STRATEGY[0].experimental_distribute_dataset(dataset(5)) if STRATEGY else dataset(5)


def loader():
    import torch

    images = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return torch.utils.data.DataLoader(images, batch_size=BATCH)


def generator():
    yield from ((X[:size], Y[:size]) for size in SIZES)


OF_TENSORFLOW = {
    "a distributed dataset": lambda: dict(x=distributed()),
}
KINDS = {
    "arrays": lambda: dict(x=X, y=Y, batch_size=BATCH),
    "arrays of another size": lambda: dict(x=X, y=Y, batch_size=5),
    "an unequal rest": lambda: dict(x=X[:21], y=Y[:21], batch_size=BATCH),
    "fewer rows than devices": lambda: dict(x=X[:1], y=Y[:1]),
    "a dataset of another size": lambda: dict(x=dataset(5)),
    "default batches": lambda: dict(x=X, y=Y),
    "with weights": lambda: dict(x=X, y=Y, batch_size=BATCH, sample_weight=np.arange(COUNT) / COUNT),
    "validation_split": lambda: dict(x=X, y=Y, batch_size=BATCH, validation_split=0.25),
    "a list": lambda: dict(x=[X], y=Y, batch_size=BATCH),
    "a dataset": lambda: dict(x=dataset()),
    "a PyDataset": lambda: dict(x=Batches(), validation_data=Batches()),
    "a DataLoader": lambda: dict(x=loader(), validation_data=loader()),
    "a generator": lambda: dict(x=generator(), steps_per_epoch=2),
    "a generator that ends": lambda: dict(x=generator(), steps_per_epoch=9, epochs=1),
    **(OF_TENSORFLOW if keras.backend.backend() == "tensorflow" else {}),
}
JUDGED = ("a dataset", "a PyDataset", "a DataLoader")
"""What evaluate and predict take too, here."""


def two_devices():
    if keras.backend.backend() == "jax":
        names = keras.distribution.list_devices("cpu")[:2]
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names))
        return contextlib.nullcontext()
    import tensorflow as tf

    STRATEGY.append(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    return STRATEGY[0].scope()


def train(scope):
    """The numbers of each kind."""
    with scope:
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                PatchEmbed(patch_size=4, dim=8),
                EncoderBlock(num_heads=2, mlp_dim=8),
                MeanPool(),
                keras.layers.Dense(3),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    for weight, value in zip(model.weights, begin(model), strict=True):
        weight.assign(value)
    first = model.get_weights()
    found = {}
    for name, make in KINDS.items():
        model.set_weights(first)
        history = model.fit(**{"epochs": 2, "shuffle": False, "verbose": 0, **make()}).history
        judged = (make()["x"], None) if name in JUDGED else (X, Y)
        numbers = [
            *(history[one] for one in sorted(history) if one.startswith("val_")),
            np.ravel(model.evaluate(*judged, verbose=0)),
            np.ravel(model.predict(judged[0], verbose=0)),
            np.ravel(model.predict_on_batch(X[:5])),
            np.ravel(model.test_on_batch(X[:4], Y[:4])),
            *(np.ravel(value) for value in model.get_weights()),
        ]
        found[name] = np.concatenate(numbers)
    if STRATEGY:
        for name, nothing in {"generator": iter(()), "PyDataset": Nothing()}.items():
            with contextlib.suppress(InputError):
                model.fit(nothing, steps_per_epoch=1, verbose=0)
                raise AssertionError(f"an empty {name} was taken")
    return found, distribution_of(model).num_devices


def begin(model):
    values = np.random.default_rng(1)
    return [values.normal(size=weight.shape) * 0.2 for weight in model.weights]


if __name__ == "__main__":
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_num_cpu_devices", 2)
    else:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one, count = train(contextlib.nullcontext())
    assert count == 1
    two, count = train(two_devices())
    assert count == 2
    keras.distribution.set_distribution(None)
    with distribute() as counted:  # all that are configured
        pass
    with open(sys.argv[1], "w") as file:
        differences = {name: float(np.abs(one[name] - two[name]).max()) for name in one}
        json.dump({**differences, "devices of distribute()": counted.num_devices}, file)
