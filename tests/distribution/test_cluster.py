"""The processes that a launcher announces, and what `distribute()` refuses before it uses a device."""

import json
import os

import keras
import pytest

import keras_vit
from keras_vit.distribution.cluster import Cluster, read_cluster
from keras_vit.distribution.engine import Distribution
from keras_vit.errors import InputError

BACKEND = keras.backend.backend()
KERAS = "KERAS_DISTRIBUTION_"
LAUNCHERS = ("TF_CONFIG", KERAS, "WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "SLURM_")


def tf_config(kind="worker", index=0, **cluster):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def keras_variables(addresses, processes=None, process_id=None):
    given = {"JOB_ADDRESSES": addresses, "NUM_PROCESSES": processes, "PROCESS_ID": process_id}
    return {KERAS + name: str(value) for name, value in given.items() if value is not None}


def torchrun(processes, rank=None, local_processes=None):
    given = {"WORLD_SIZE": processes, "RANK": rank, "LOCAL_WORLD_SIZE": local_processes}
    return {name: str(value) for name, value in given.items() if value is not None}


def slurm(tasks, rank=None, nodes=None):
    given = {"STEP_NUM_TASKS": tasks, "PROCID": rank, "STEP_NUM_NODES": nodes}
    return {f"SLURM_{name}": str(value) for name, value in given.items() if value is not None}


ALONE = Cluster()
TWO_LOCAL = tf_config(index=1, worker=["localhost:1", "localhost:2"])
# backend, environment -> cluster
CLUSTERS = {
    "tensorflow, no launcher": ("tensorflow", {}, ALONE),
    "tensorflow, empty": ("tensorflow", {"TF_CONFIG": ""}, ALONE),
    "tensorflow, blank": ("tensorflow", {"TF_CONFIG": " \n"}, ALONE),
    "tensorflow, no cluster": ("tensorflow", {"TF_CONFIG": "{}"}, ALONE),
    "tensorflow, a task outside the cluster": ("tensorflow", tf_config(), ALONE),
    "tensorflow, one worker": (
        "tensorflow",
        tf_config(worker=["a:1"]),
        Cluster(1, 0, 1, "TF_CONFIG", ("a:1",)),
    ),
    "tensorflow, two on one host": (
        "tensorflow",
        TWO_LOCAL,
        Cluster(2, 1, 1, "TF_CONFIG", ("localhost:1", "localhost:2")),
    ),
    "tensorflow, two hosts": (
        "tensorflow",
        tf_config(worker=["a:1", "b:1"]),
        Cluster(2, 0, 2, "TF_CONFIG", ("a:1", "b:1")),
    ),
    "tensorflow, four on two hosts": (
        "tensorflow",
        tf_config(index=3, worker=["a:1", "a:2", "b:1", "b:2"]),
        Cluster(4, 3, 2, "TF_CONFIG", ("a:1", "a:2", "b:1", "b:2")),
    ),
    "tensorflow, hosts by IPv6": (
        "tensorflow",
        tf_config(worker=["[::1]:1", "[::1]:2"]),
        Cluster(2, 0, 1, "TF_CONFIG", ("[::1]:1", "[::1]:2")),
    ),
    "tensorflow, the chief": (
        "tensorflow",
        tf_config("chief", worker=["b:1"], chief=["a:1"]),
        Cluster(2, 0, 2, "TF_CONFIG", ("a:1", "b:1")),
    ),
    "tensorflow, a worker beside a chief": (
        "tensorflow",
        tf_config("worker", 1, worker=["b:1", "c:1"], chief=["a:1"]),
        Cluster(3, 2, 3, "TF_CONFIG", ("a:1", "b:1", "c:1")),
    ),
    "tensorflow, an index that is not a number": (
        "tensorflow",
        tf_config(index="1", worker=["a:1", "b:1"]),
        Cluster(2, 1, 2, "TF_CONFIG", ("a:1", "b:1")),
    ),
    "tensorflow, by TF_CONFIG in Slurm": (
        "tensorflow",
        {**TWO_LOCAL, **slurm(2, 0)},
        Cluster(2, 1, 1, "TF_CONFIG", ("localhost:1", "localhost:2")),
    ),
    "tensorflow, one task of Slurm": ("tensorflow", slurm(1, 0, 1), ALONE),
    "tensorflow ignores other launchers": (
        "tensorflow",
        {**keras_variables("a:1", 2, 1), **torchrun(2, 1)},
        ALONE,
    ),
    "jax, no launcher": ("jax", {}, ALONE),
    "jax, one process": ("jax", keras_variables("a:1", 1, 0), ALONE),
    "jax, the first address": (
        "jax",
        keras_variables("a:1", 4, 3),
        Cluster(4, 3, 4, KERAS + "NUM_PROCESSES", ("a:1",)),
    ),
    "jax, all addresses": (
        "jax",
        keras_variables("a:1,a:2,b:1", 3, 0),
        Cluster(3, 0, 2, KERAS + "NUM_PROCESSES", ("a:1", "a:2", "b:1")),
    ),
    "jax, as many as there are addresses": (
        "jax",
        keras_variables("a:1,b:1", process_id=1),
        Cluster(2, 1, 2, KERAS + "NUM_PROCESSES", ("a:1", "b:1")),
    ),
    "jax in Slurm": ("jax", slurm(4, 3, 2), Cluster(4, 3, 2, "SLURM_STEP_NUM_TASKS")),
    "jax in Slurm, nodes not announced": ("jax", slurm(4, 0), Cluster(4, 0, 4, "SLURM_STEP_NUM_TASKS")),
    "jax, one task of Slurm": ("jax", slurm(1, 0, 1), ALONE),
    "jax, by Keras's variables in Slurm": (
        "jax",
        {**keras_variables("a:1", 2, 1), **slurm(2, 0, 1)},
        Cluster(2, 1, 2, KERAS + "NUM_PROCESSES", ("a:1",)),
    ),
    "jax ignores other launchers": ("jax", {**TWO_LOCAL, **torchrun(2, 1)}, ALONE),
    "torch, no launcher": ("torch", {}, ALONE),
    "torch, one process": ("torch", torchrun(1, 0, 1), ALONE),
    "torch, one machine": ("torch", torchrun(4, 2, 4), Cluster(4, 2, 1, "WORLD_SIZE")),
    "torch, two machines": ("torch", torchrun(4, 2, 2), Cluster(4, 2, 2, "WORLD_SIZE")),
    "torch, machines not announced": ("torch", torchrun(4, 2), Cluster(4, 2, 1, "WORLD_SIZE")),
    "torch, torchrun in Slurm": (
        "torch",
        {**torchrun(4, 2, 2), **slurm(2, 1)},
        Cluster(4, 2, 2, "WORLD_SIZE"),
    ),
    "torch ignores other launchers": ("torch", {**TWO_LOCAL, **keras_variables("a:1", 2, 1)}, ALONE),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(("backend", "environment", "cluster"), CLUSTERS.values(), ids=CLUSTERS.keys())
def test_the_cluster_is_read_from_the_launcher(backend, environment, cluster):
    assert read_cluster(backend, environment) == cluster


NOT_JSON = "TF_CONFIG is not the JSON that TensorFlow expects ("
SEE_DOCS = "): docs/cluster.md has an example."
NOT_IN_CLUSTER = ": give each process a type and an index of the cluster."
LEFT_OUT = (
    f"{KERAS}NUM_PROCESSES is 2: also set {KERAS}JOB_ADDRESSES to host:port of the first process and "
    f"{KERAS}PROCESS_ID to the number of this one."
)


def unconnected(tasks, means, backend):
    return (
        f"Slurm runs {tasks} tasks of this step, but they do not know about each other: start them with "
        f"{means}, as examples/cluster/slurm_{backend}.sbatch does, or set --distribute none and --ntasks 1."
    )


# backend, environment -> parts of the message
WRONG_ENVIRONMENTS = {
    "tensorflow, truncated": ("tensorflow", {"TF_CONFIG": '{"cluster": {'}, (NOT_JSON, SEE_DOCS)),
    "tensorflow, not JSON": ("tensorflow", {"TF_CONFIG": "worker 0"}, (NOT_JSON, SEE_DOCS)),
    "tensorflow, a list": ("tensorflow", {"TF_CONFIG": "[1]"}, (NOT_JSON, SEE_DOCS)),
    "tensorflow, a cluster in a list": ("tensorflow", {"TF_CONFIG": '{"cluster": ["a:1"]}'}, (NOT_JSON,)),
    "tensorflow, hosts by number": ("tensorflow", tf_config(worker=2), (NOT_JSON, SEE_DOCS)),
    "tensorflow, no task": (
        "tensorflow",
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}, "task": 0}'},
        (NOT_JSON,),
    ),
    "tensorflow, an index in letters": ("tensorflow", tf_config(index="one", worker=["a:1"]), (NOT_JSON,)),
    "tensorflow, parameter servers": (
        "tensorflow",
        tf_config(worker=["a:1"], ps=["b:1"], evaluator=["c:1"]),
        (
            "TF_CONFIG has evaluator, ps tasks, which model.fit of Keras 3 cannot use "
            "(ParameterServerStrategy): list workers only.",
        ),
    ),
    "tensorflow, index behind the last": (
        "tensorflow",
        tf_config(index=2, worker=["a:1", "b:1"]),
        ("TF_CONFIG names this process task 'worker' 2, which is not in its cluster of 2" + NOT_IN_CLUSTER,),
    ),
    "tensorflow, index below 0": (
        "tensorflow",
        tf_config(index=-1, worker=["a:1", "b:1"]),
        ("this process task 'worker' -1, which is not in its cluster of 2" + NOT_IN_CLUSTER,),
    ),
    "tensorflow, a kind that is not there": (
        "tensorflow",
        tf_config("chief", worker=["a:1", "b:1"]),
        ("this process task 'chief' 0, which is not in its cluster of 2" + NOT_IN_CLUSTER,),
    ),
    "tensorflow, no kind": (
        "tensorflow",
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'},
        ("this process task '' 0, which is not in its cluster of 2" + NOT_IN_CLUSTER,),
    ),
    "tensorflow, no hosts": (
        "tensorflow",
        tf_config(worker=[]),
        ("this process task 'worker' 0, which is not in its cluster of 0" + NOT_IN_CLUSTER,),
    ),
    "tensorflow in Slurm": ("tensorflow", slurm(4, 3, 2), (unconnected(4, "TF_CONFIG", "tensorflow"),)),
    "tensorflow in Slurm, with the launcher of another backend": (
        "tensorflow",
        {**slurm(2, 1), **torchrun(2, 1)},
        (unconnected(2, "TF_CONFIG", "tensorflow"),),
    ),
    "torch in Slurm": ("torch", slurm(4, 3, 2), (unconnected(4, "torchrun", "torch"),)),
    "jax, no PROCESS_ID": ("jax", keras_variables("a:1", 2), (LEFT_OUT,)),
    "jax, two addresses and no PROCESS_ID": ("jax", keras_variables("a:1,b:1"), (LEFT_OUT,)),
    "jax, no address": ("jax", keras_variables(None, 2, 0), (LEFT_OUT,)),
    "jax, an empty address": ("jax", keras_variables(",", 2, 0), (LEFT_OUT,)),
    "jax, PROCESS_ID behind the last": (
        "jax",
        keras_variables("a:1", 2, 2),
        (f"{KERAS}PROCESS_ID must be 0 to 1. Received: 2",),
    ),
    "jax, PROCESS_ID below 0": (
        "jax",
        keras_variables("a:1", 2, -1),
        (f"{KERAS}PROCESS_ID must be 0 to 1. Received: -1",),
    ),
    "jax, PROCESS_ID in letters": (
        "jax",
        keras_variables("a:1", 2, "one"),
        (f"{KERAS}PROCESS_ID must be a whole number. Received: 'one'",),
    ),
    "jax, NUM_PROCESSES not a whole number": (
        "jax",
        keras_variables("a:1", "2.5", 0),
        (f"{KERAS}NUM_PROCESSES must be a whole number. Received: '2.5'",),
    ),
    "jax in Slurm, no PROCID": ("jax", slurm(2), ("SLURM_PROCID must be a whole number. Received: None",)),
    "jax in Slurm, a PROCID in letters": (
        "jax",
        slurm(2, "x"),
        ("SLURM_PROCID must be a whole number. Received: 'x'",),
    ),
    "jax in Slurm, tasks in letters": (
        "jax",
        slurm("2(x3)", 0),
        ("SLURM_STEP_NUM_TASKS must be a whole number. Received: '2(x3)'",),
    ),
    "torch, WORLD_SIZE in letters": (
        "torch",
        torchrun("two", 0),
        ("WORLD_SIZE must be a whole number. Received: 'two'",),
    ),
    "torch, an empty WORLD_SIZE": (
        "torch",
        torchrun("", 0),
        ("WORLD_SIZE must be a whole number. Received: ''",),
    ),
    "torch, no RANK": ("torch", torchrun(2), ("RANK must be a whole number. Received: None",)),
    "torch, LOCAL_WORLD_SIZE in letters": (
        "torch",
        torchrun(2, 0, "all"),
        ("LOCAL_WORLD_SIZE must be a whole number. Received: 'all'",),
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("backend", "environment", "parts"), WRONG_ENVIRONMENTS.values(), ids=WRONG_ENVIRONMENTS.keys()
)
def test_wrong_environments_are_named(backend, environment, parts):
    with pytest.raises(InputError) as caught:
        read_cluster(backend, environment)
    for part in parts:
        assert part in str(caught.value)


OUTSIDE = {
    "tensorflow, a second chief of one": (
        "tensorflow",
        tf_config("chief", 1, chief=["a:1"], worker=["b:1"]),
        "this process task 'chief' 1, which is not in its cluster of 2" + NOT_IN_CLUSTER,
    ),
    "tensorflow, a worker below 0 beside a chief": (
        "tensorflow",
        tf_config("worker", -1, chief=["a:1"], worker=["b:1"]),
        "this process task 'worker' -1, which is not in its cluster of 2" + NOT_IN_CLUSTER,
    ),
    "tensorflow, hosts that are not a list": ("tensorflow", tf_config(worker="a:1"), NOT_JSON),
    "jax, no process": (
        "jax",
        keras_variables("a:1", 0, 0),
        f"{KERAS}NUM_PROCESSES must be 1 or more. Received: {KERAS}NUM_PROCESSES=0",
    ),
    "jax in Slurm, PROCID behind the last": (
        "jax",
        slurm(2, 2),
        "SLURM_PROCID must be 0 to 1. Received: 2",
    ),
    "torch, no process": (
        "torch",
        torchrun(0, 0),
        "WORLD_SIZE must be 1 or more. Received: WORLD_SIZE=0",
    ),
    "torch, no process here": (
        "torch",
        torchrun(2, 0, 0),
        "LOCAL_WORLD_SIZE must be 1 or more. Received: LOCAL_WORLD_SIZE=0",
    ),
    "torch, RANK behind the last": ("torch", torchrun(2, 2, 2), "RANK must be 0 to 1. Received: 2"),
    "torch, RANK below 0": ("torch", torchrun(2, -1, 2), "RANK must be 0 to 1. Received: -1"),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(("backend", "environment", "message"), OUTSIDE.values(), ids=OUTSIDE.keys())
def test_numbers_out_of_range_are_named(backend, environment, message):
    with pytest.raises(InputError) as caught:
        read_cluster(backend, environment)
    assert message in str(caught.value)


@pytest.mark.same_on_every_backend
def test_addresses_may_have_spaces_between_them():
    found = read_cluster("jax", keras_variables("a:1, a:2", 2, 1))
    assert found == Cluster(2, 1, 1, KERAS + "NUM_PROCESSES", ("a:1", "a:2"))


# distribute()


@pytest.fixture
def unannounced(monkeypatch):
    """An environment without the variables of any launcher; the test may set some."""
    for name in list(os.environ):
        if name.startswith(LAUNCHERS):
            monkeypatch.delenv(name)
    return monkeypatch


TWO_PROCESSES = {
    "tensorflow": ("TF_CONFIG", TWO_LOCAL),
    "jax": (KERAS + "NUM_PROCESSES", keras_variables("localhost:1", 2, 1)),
    "torch": ("WORLD_SIZE", torchrun(2, 1, 2)),
}
HOW_TO_LAUNCH = {
    "tensorflow": "set TF_CONFIG on each machine",
    "jax": f"set {KERAS}JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID on each machine",
    "torch": "start it with torchrun --nnodes",
}
REFUSED = {
    "unknown kind": (
        dict(kind="mirrored"),
        "kind must be one of 'auto', 'none', 'data', 'model'. Received: kind='mirrored'",
    ),
    "no devices": (dict(devices=0), "devices must be 1 or more. Received: devices=0"),
    "devices below 0": (dict(kind="data", devices=-2), "devices must be 1 or more. Received: devices=-2"),
    "devices in text": (
        dict(devices="2"),
        "devices must be a whole number or None. Received: devices='2'",
    ),
    "no model_devices": (dict(kind="model", model_devices=0), "model_devices must be 1 or more"),
    "no nodes": (dict(nodes=0), "nodes must be 1 or more. Received: nodes=0"),
    "model_devices of kind data": (
        dict(kind="data", model_devices=2),
        "model_devices and layout are for kind='model'. Received: kind='data'",
    ),
    "model_devices of kind auto": (
        dict(model_devices=2),
        "model_devices and layout are for kind='model'. Received: kind='auto'",
    ),
    "layout of kind none": (
        dict(kind="none", layout={".*kernel": (None, "model")}),
        "model_devices and layout are for kind='model'. Received: kind='none'",
    ),
    "two machines without a launcher": (
        dict(nodes=2),
        "nodes=2, but the launcher of this process announces 1: "
        f"{HOW_TO_LAUNCH[BACKEND]}, see docs/cluster.md.",
    ),
    "kind none on two devices": (
        dict(kind="none", devices=2),
        "kind='none' is one device. Received: devices=2",
    ),
}
if BACKEND != "jax":
    REFUSED["kind model"] = (dict(kind="model"), "use the JAX backend (KERAS_BACKEND=jax) for kind 'model'")
if BACKEND == "torch":
    REFUSED["devices of one process"] = (
        dict(devices=3),
        "start this as `torchrun --standalone --nproc-per-node 3 ...`",
    )


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_distribute_refuses(arguments, message, unannounced):
    with pytest.raises(InputError) as caught:
        keras_vit.distribute(**arguments)
    assert message in str(caught.value)


def test_processes_without_distribute_are_refused(unannounced):
    name, environment = TWO_PROCESSES[BACKEND]
    for key, value in environment.items():
        unannounced.setenv(key, value)
    with pytest.raises(InputError) as caught:
        keras_vit.distribute("none")
    assert str(caught.value) == (
        f"{name} announces 2 processes, and with kind='none' each would train its own model: use "
        "kind='data', or start one process."
    )


def test_a_wrong_number_of_machines_is_refused(unannounced):
    environment = {
        "tensorflow": tf_config(worker=["a:1", "b:1"]),
        "jax": keras_variables("a:1", 2, 0),
        "torch": torchrun(2, 0, 1),
    }[BACKEND]
    for key, value in environment.items():
        unannounced.setenv(key, value)
    with pytest.raises(InputError) as caught:
        keras_vit.distribute(nodes=3)
    assert "nodes=3, but the launcher of this process announces 2: " in str(caught.value)


@pytest.mark.parametrize("arguments", [dict(), dict(devices=1), dict(nodes=1)], ids=str)
def test_kind_none_is_one_device(arguments, unannounced):
    found = keras_vit.distribute("none", **arguments)
    assert type(found) is Distribution
    assert (found.num_devices, found.num_processes, found.is_chief, str(found)) == (1, 1, True, "one device")
