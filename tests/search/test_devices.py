"""Trials under distribute(): the same search on two devices as on one."""

import pytest

from keras_vit.search.results import read_search
from tests.search.running import finish, start

pytestmark = pytest.mark.long


def test_two_devices_give_the_trials_of_one(images, tmp_path):
    # Without stochastic depth, which draws different numbers on each device.
    options = ("--max-trials", "2", "--freeze", *FROZEN_WITHOUT_DROPOUT)
    found = {}
    for name, devices in (("one", ()), ("two", ("--distribute", "data", "--devices", "2"))):
        finish(start(images, tmp_path / name, *options, *devices, OMP_NUM_THREADS="1"))
        found[name] = read_search(tmp_path / name).trials
    assert [trial.status for trial in found["two"]] == ["COMPLETED"] * 2
    for one, two in zip(found["one"], found["two"], strict=True):
        assert two.values == one.values
        for a, b in zip(one.history, two.history, strict=True):
            assert b == pytest.approx(a, abs=1e-4)


FROZEN_WITHOUT_DROPOUT = (
    "depth=1",
    "num_heads=2",
    "dim=16",
    "stem=linear",
    "patch_size=4",
    "mlp_ratio=2",
    "batch_size=8",
    "drop_path_rate=0.0",
    "augmentation=0.0",
)
