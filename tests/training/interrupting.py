"""For the tests of runs that are cut off: what makes them fail, and the comparison with one that was not."""

import csv

import numpy as np
import pytest

from keras_vit import files
from keras_vit.training import loop

EPOCHS = 3


class CutOff(SystemExit):
    """An exception that no code under test catches, like a process that is killed."""


def history_of(run):
    with open(run.path / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_same(run, other):
    """The same weights, history and evaluation, and no partial folder left."""
    assert sorted(p.name for p in run.path.iterdir()) == sorted(p.name for p in other.path.iterdir())
    assert not files.partial_of(run.path).exists()
    for ours, theirs in zip(run.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    rows, expected = history_of(run), history_of(other)
    assert len(rows) == EPOCHS
    for row, found in zip(expected, rows, strict=True):
        for name in set(row) - {"seconds"}:
            assert float(found[name]) == pytest.approx(float(row[name]), rel=1e-4), name
    for weights in ("best", "last"):
        assert run.metrics[weights]["epoch"] == other.metrics[weights]["epoch"]
        assert run.metrics[weights]["per_class"] == other.metrics[weights]["per_class"]


def raising(error):
    def stand_in(*arguments, **options):
        raise error

    return stand_in


def at_batch(epoch, batch, error=CutOff):
    """A callback instead of EpochSeconds that raises this error in an epoch. Epochs count from 0."""

    class Cutting(loop.EpochSeconds):
        now = 0

        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            self.now = epoch

        def on_train_batch_end(self, number, logs=None):
            if (self.now, number) == (epoch, batch):
                raise error

    return Cutting
