"""20 steps of AdamW with a moving average, clipping and batch norms: several devices equal one device.

So do models of other classes inside `distribute()`, and models on devices that the user has set up.
"""

import json

import numpy as np
import pytest

from tests.distribution.processes import BACKEND, finish, start
from tests.distribution.steps import STEPS

pytestmark = pytest.mark.long

# The README names these figures.
TOLERANCE = 1e-5

CLIPPED = {"optimizer": {"global_clipnorm": 0.5}}
BY_VALUE = {"optimizer": {"sgd": True, "clipvalue": 1e-3}, "model": {"stem": "linear"}}
# Options that are not refused must be right: accumulated gradients, a scaled loss, and on JAX two steps at
# a time.
OTHERS = {
    "optimizer": {"gradient_accumulation_steps": 2, "scaled": True},
    "compile": {"steps_per_execution": 2} if BACKEND == "jax" else {},
    "model": {"qkv_bias": False},  # as in BY_HAND
}
LAYERWISE = {
    "optimizer": {"layerwise": True, "global_clipnorm": 0.5},
    "model": {"stem": "linear", "qkv_bias": False},
}
SEQUENTIAL = {"build": "in_a_sequential", **CLIPPED}
NEW_HEAD = {"build": "new_head", **CLIPPED}
# Without the bias of the keys, whose gradient is only rounding, which Adam scales up.
BY_HAND = {"build": "by_hand", "model": {"qkv_bias": False}, **CLIPPED}
SUBCLASSED = {**BY_HAND, "build": "Subclassed"}
SCALED = {
    "optimizer": {"scaled": True, "global_clipnorm": 0.5},
    "model": {"stem": "linear", "qkv_bias": False},
    "overflow": True,
}
REST = {"rest": 3, **CLIPPED}  # the last batch has 5 images
LOOP = {"loop": True, "model": {"qkv_bias": False}}
LORA = {"recipe": {"tune": "lora"}, "model": {"qkv_bias": False}, **CLIPPED}
ON_ONE = {
    "one": {"distribute": {"kind": "none"}, **CLIPPED},
    "one, layer by layer": {"distribute": {"kind": "none"}, **LAYERWISE},
    "one, lora": {"distribute": {"kind": "none"}, **LORA},
    "one, in a Sequential": {"distribute": {"kind": "none"}, **SEQUENTIAL},
    "one, by hand": {"distribute": {"kind": "none"}, **BY_HAND},
}
ON_ONE["one, with a rest"] = {"distribute": {"kind": "none"}, **REST}
if BACKEND == "tensorflow":  # there, Keras clips before the sum, and looks for overflow in one replica
    ON_ONE["one, scaled"] = {"distribute": {"kind": "none"}, **SCALED}
    ON_ONE["one, clipped by value"] = {"distribute": {"kind": "none"}, **BY_VALUE}
else:
    ON_ONE["one, other options"] = {"distribute": {"kind": "none"}, **OTHERS}
if BACKEND == "torch":
    ON_ONE["one, new head"] = {"distribute": {"kind": "none"}, **NEW_HEAD}
    ON_ONE["one, subclassed"] = {"distribute": {"kind": "none"}, **SUBCLASSED}
    ON_ONE["one, loop"] = {"distribute": {"kind": "none"}, **LOOP}
IN_ONE_PROCESS = {
    "tensorflow": {
        "two": {"distribute": {"devices": 2}, **CLIPPED},
        "two, clipped by value": {"distribute": {"devices": 2}, **BY_VALUE},
        "two, scaled": {"distribute": {"devices": 2}, **SCALED},
        "two, layer by layer": {"distribute": {"devices": 2}, **LAYERWISE},
        "two, lora": {"distribute": {"devices": 2}, **LORA},
        "two, in a Sequential": {"distribute": {"devices": 2}, **SEQUENTIAL},
        "the user's two": {"own": True, **CLIPPED},
        "the user's two, by hand": {"own": True, **BY_HAND},
        "the user's two, with a rest": {"own": True, **REST},
    },
    "jax": {
        # Four devices come first: JAX keeps the number of devices of the first case.
        "four": {"distribute": {"devices": 4}, **CLIPPED},
        "two": {"distribute": {"devices": 2}, **CLIPPED},
        "two, other options": {"distribute": {"devices": 2}, **OTHERS},
        "two, layer by layer": {"distribute": {"devices": 2}, **LAYERWISE},
        "two, lora": {"distribute": {"kind": "model", "devices": 2}, **LORA},
        "two, split": {"distribute": {"kind": "model", "devices": 2}, **CLIPPED},
        "four, split in pairs": {
            "distribute": {"kind": "model", "devices": 4, "model_devices": 2},
            **CLIPPED,
        },
        "two, in a Sequential": {"distribute": {"devices": 2}, **SEQUENTIAL},
        "the user's two": {"own": True, **CLIPPED},
        "the user's two, by hand": {"own": True, **BY_HAND},
        "the user's two, with a rest": {"own": True, **REST},
        "the user's four, with a rest": {"own": True, "split": 2, **REST},
    },
    "torch": {},
}[BACKEND]
IN_TWO_PROCESSES = {
    "tensorflow": {
        "two processes": {"distribute": {}, **CLIPPED},
        "two processes, by hand": {"own": True, **BY_HAND},
    },
    "jax": {
        "two processes": {"distribute": {"devices": 2}, **CLIPPED},
        "two processes, split in each": {"distribute": {"kind": "model", "devices": 2}, **CLIPPED},
    },
    "torch": {
        # The user's own come first: `distribute()` adopts the same group, and is strict from then on.
        **{
            f"two processes with {data}, with a rest": {"own": True, "data": data, **REST}
            for data in ("arrays", "PyDataset", "generator", "DataLoader")
        },
        "two processes, with a rest": {"own": True, **REST},
        "two processes, by hand": {"own": True, **BY_HAND},
        "two processes, subclassed": {"own": True, **SUBCLASSED},
        "two processes, loop": {"own": True, **LOOP},
        "two processes": {"distribute": {}, **CLIPPED},
        "two processes, other options": {"distribute": {}, **OTHERS},
        "two processes, layer by layer": {"distribute": {}, **LAYERWISE},
        "two processes, lora": {"distribute": {}, **LORA},
        "two processes, in a Sequential": {"distribute": {}, **SEQUENTIAL},
        "two processes, new head": {"distribute": {}, **NEW_HEAD},
    },
}[BACKEND]
# Each of the two JAX processes has two devices.
DEVICES = {
    "four": 4,
    "four, split in pairs": 4,
    "the user's four, with a rest": 4,
    **dict.fromkeys(IN_TWO_PROCESSES, 4 if BACKEND == "jax" else 2),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The output of each case, by its name."""
    folder = tmp_path_factory.mktemp("steps")

    def run(cases, count=None):
        given = [{**case, "out": str(folder / f"{name}.npz")} for name, case in cases.items()]
        finish(start("steps", json.dumps({"cases": given}), count=count))

    run({**IN_ONE_PROCESS, **ON_ONE})
    if BACKEND == "tensorflow":  # a process can have one MultiWorkerMirroredStrategy
        for name, case in IN_TWO_PROCESSES.items():
            run({name: case}, count=2)
    else:
        run(IN_TWO_PROCESSES, count=2)
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


@pytest.mark.parametrize("name", [*IN_ONE_PROCESS, *IN_TWO_PROCESSES])
def test_equals_one_device(runs, name):
    kind = name.partition(", ")[2]
    expected, found = runs.get(f"one, {kind}", runs["one"]), runs[name]
    assert expected["devices"] == 1
    assert found["devices"] == DEVICES.get(name, 2)
    assert found.keys() == expected.keys()
    at_a_time = 2 if BACKEND == "jax" and "other options" in name else 1
    assert len(found["losses"]) == (0 if "loop" in name else STEPS) / at_a_time
    # While a batch is shared unequally, Keras's progress bar shows the mean of the replicas' own means.
    skipped = {"devices", "losses"} if "rest" in name and BACKEND == "tensorflow" else {"devices"}
    for key in expected.keys() - skipped:
        np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=TOLERANCE, err_msg=key)
