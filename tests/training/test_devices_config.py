"""Where a run trains: its options, how they are recorded, and which batch sizes fit."""

import dataclasses
import json
import shlex

import pytest

from keras_vit.cli.main import main, parse
from keras_vit.distribution import Distribution
from keras_vit.errors import InputError
from keras_vit.process.exit_codes import WRONG_USAGE
from keras_vit.training.config import DEVICES, TrainConfig, from_dict, to_dict
from keras_vit.training.options import command_of, differences
from keras_vit.training.recipe import RECIPES

pytestmark = pytest.mark.same_on_every_backend

# settings, the options that command_of adds
DEVICE_SETTINGS = {
    "default": (dict(), ""),
    "default, given": (dict(distribute="auto", devices=None, model_devices=None, nodes=None), ""),
    "one device": (dict(distribute="none"), "--distribute none"),
    "shared": (dict(distribute="data", devices=2), "--distribute data --devices 2"),
    "one device of one machine": (dict(devices=1), "--devices 1"),
    "several machines": (dict(nodes=4), "--nodes 4"),
    "split": (
        dict(distribute="model", devices=8, model_devices=2, nodes=1),
        "--distribute model --devices 8 --model-devices 2 --nodes 1",
    ),
}
device_settings = pytest.mark.parametrize(
    ("given", "options"), DEVICE_SETTINGS.values(), ids=DEVICE_SETTINGS.keys()
)


@device_settings
def test_command_of_has_only_changed_options(given, options):
    config = TrainConfig(model="defect/4", **given)
    assert command_of(config) == " ".join(["keras-vit train --model defect/4", *filter(None, [options])])


@device_settings
def test_the_command_repeats_the_config(given, options):
    config = TrainConfig(model="S/16", data="my images", recipe=RECIPES["lab"], seed=3, **given)
    again = parse(shlex.split(command_of(config))[1:]).run
    assert again == config
    assert [getattr(again, name) for name in DEVICES] == [getattr(config, name) for name in DEVICES]


@device_settings
def test_to_dict_omits_the_devices(given, options):
    config, alone = TrainConfig(**given), TrainConfig()
    plain = to_dict(config)
    assert {"distribute", "devices", "model_devices", "nodes"}.isdisjoint(plain)
    assert plain == to_dict(alone)
    assert differences(config, alone) == {}
    # A run may continue on other devices.
    assert from_dict(json.loads(json.dumps(plain))) == alone
    assert from_dict(plain, **given) == config


WRONG = {
    "distribute": (
        dict(distribute="mirrored"),
        "distribute must be one of 'auto', 'none', 'data', 'model'. Received: distribute='mirrored'",
    ),
    "distribute nothing": (dict(distribute=None), "Received: distribute=None"),
    "no devices": (dict(devices=0), "devices must be 1 or more. Received: devices=0"),
    "devices below 0": (dict(devices=-1), "devices must be 1 or more. Received: devices=-1"),
    "endless devices": (dict(devices=float("inf")), "Received: devices=inf"),
    "no model_devices": (dict(model_devices=0), "model_devices must be 1 or more. Received: model_devices=0"),
    "no nodes": (dict(nodes=0), "nodes must be 1 or more. Received: nodes=0"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_values(given, message):
    with pytest.raises(InputError) as caught:
        TrainConfig(**given)
    assert message in str(caught.value)
    with pytest.raises(InputError):
        dataclasses.replace(TrainConfig(), **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--devices 0", "devices must be 1 or more. Received: devices=0"),
        ("--model-devices 0", "model_devices must be 1 or more. Received: model_devices=0"),
        ("--nodes -1", "nodes must be 1 or more. Received: nodes=-1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError) as caught:
        _ = parse(["train", *options.split()]).run
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "named"),
    [("--distribute mirrored", "mirrored"), ("--devices two", "two"), ("--nodes", "--nodes")],
)
def test_unknown_options_are_wrong_usage(options, named, capsys):
    assert main(["train", *options.split()]) == WRONG_USAGE
    assert named in capsys.readouterr().err


# What a run records about its devices


def replicas(count, model_devices=1):
    distribution = Distribution()
    distribution.kind, distribution.engine = "data", "Together"
    distribution.num_replicas, distribution.model_devices = count, model_devices
    distribution.num_devices = count * model_devices
    return distribution


RULE = "that of one device: the global batch does not grow with the devices"


def test_describe_of_one_device():
    assert Distribution().describe(32) == {
        "kind": "none",
        "engine": "one device",
        "devices": 1,
        "processes": 1,
        "replicas": 1,
        "model_devices": 1,
        "global_batch_size": 32,
        "batch_size_per_replica": 32,
        "learning_rate_rule": RULE,
    }


@pytest.mark.parametrize(("count", "model_devices", "each"), [(2, 1, 16), (4, 2, 8), (8, 1, 4)])
def test_describe_of_several(count, model_devices, each):
    found = replicas(count, model_devices).describe(32)
    assert json.loads(json.dumps(found)) == found
    assert (found["replicas"], found["devices"]) == (count, count * model_devices)
    assert (found["global_batch_size"], found["batch_size_per_replica"]) == (32, each)


# replicas -> batch sizes that they do not divide, and the size that the message proposes
UNEQUAL = {
    2: {1: 2, 33: 32},
    3: {2: 3, 32: 30, 64: 63},
    4: {3: 4, 30: 28, 33: 32},
    5: {4: 5, 32: 30, 64: 60},
    6: {5: 6, 32: 30, 64: 60},
    7: {6: 7, 32: 28, 64: 63},
    8: {1: 8, 7: 8, 12: 8, 31: 24, 100: 96},
}


@pytest.mark.parametrize(
    ("count", "batch_size", "proposed"),
    [(count, size, proposed) for count, sizes in UNEQUAL.items() for size, proposed in sizes.items()],
)
def test_unequal_shares_are_refused(count, batch_size, proposed):
    for function in (replicas(count).check_batch_size, replicas(count).describe):
        with pytest.raises(InputError) as caught:
            function(batch_size)
        assert str(caught.value) == (
            f"A batch of {batch_size} images cannot be shared equally by {count} devices: use a batch size "
            f"of {proposed} or another multiple of {count}."
        )
    replicas(count).check_batch_size(proposed)


@pytest.mark.parametrize("count", range(1, 9))
def test_equal_shares_are_not_refused(count):
    for each in (1, 2, 7):
        replicas(count).check_batch_size(each * count)
        assert replicas(count).describe(each * count)["batch_size_per_replica"] == each
