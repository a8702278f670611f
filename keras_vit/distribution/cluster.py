"""Which processes belong to this run: read from what launchers leave in the environment."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from keras_vit.errors import InputError, check_range


@dataclass(frozen=True)
class Cluster:
    """The place of this process among those of its run.

    Args:
        num_processes: of the run, on all machines.
        process_id: of this one, from 0; process 0 is the chief, which alone writes files.
        nodes: machines.
        announced_by: the environment variable that says so.
        addresses: `host:port` of the processes, or of the first one; empty where the launcher knows them.
    """

    num_processes: int = 1
    process_id: int = 0
    nodes: int = 1
    announced_by: str = ""
    addresses: tuple[str, ...] = ()


def read_cluster(backend: str, environment: Mapping[str, str] = os.environ) -> Cluster:
    """What the launcher of this process says of its run.

    Args:
        backend: `"tensorflow"` reads TF_CONFIG, `"jax"` KERAS_DISTRIBUTION_... or Slurm, `"torch"` what
            torchrun sets.
        environment: the environment variables.

    Raises:
        InputError: a variable cannot be understood, or asks for what does not work.
    """
    readers = {"tensorflow": _from_tf_config, "jax": _from_keras_variables, "torch": _from_torchrun}
    if backend not in readers:
        return Cluster()
    cluster = readers[backend](environment)
    tasks = _count(environment, "SLURM_STEP_NUM_TASKS", default=1)
    if cluster.num_processes > 1 or tasks == 1:
        return cluster
    if backend == "jax":  # JAX asks Slurm for the address itself
        return Cluster(
            tasks,
            _place(environment, "SLURM_PROCID", tasks),
            _count(environment, "SLURM_STEP_NUM_NODES", default=tasks),
            "SLURM_STEP_NUM_TASKS",
        )
    means = "TF_CONFIG" if backend == "tensorflow" else "torchrun"
    raise InputError(
        f"Slurm runs {tasks} tasks of this step, but they do not know of each other: start them with "
        f"{means}, as examples/cluster/slurm_{backend}.sbatch does, or set --distribute none and --ntasks 1."
    )


def current_process_is_chief() -> bool:
    """Whether this process is the one that writes and prints, or the only one."""
    import keras

    return read_cluster(keras.backend.backend()).process_id == 0


def _from_tf_config(environment) -> Cluster:
    text = environment.get("TF_CONFIG", "")
    if not text.strip():
        return Cluster()
    try:
        config = json.loads(text)
        cluster = {str(kind): hosts for kind, hosts in config.get("cluster", {}).items()}
        if not all(isinstance(hosts, list) for hosts in cluster.values()):
            raise TypeError("the hosts of a kind of task are a list")
        task = config.get("task", {})
        kind, index = str(task.get("type", "")), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"TF_CONFIG is not the JSON that TensorFlow wants ({error}): see docs/cluster.md for one that is."
        ) from error
    if not cluster:
        return Cluster()
    if unusable := sorted(set(cluster) - {"chief", "worker"}):
        raise InputError(
            f"TF_CONFIG has {', '.join(unusable)} tasks, which model.fit of Keras 3 cannot use "
            "(ParameterServerStrategy): give workers only."
        )
    addresses = tuple(cluster.get("chief", []) + cluster.get("worker", []))
    place = index + (len(cluster.get("chief", [])) if kind == "worker" else 0)
    if not 0 <= index < len(cluster.get(kind, [])):
        raise InputError(
            f"TF_CONFIG says this is task {kind!r} {index}, which its cluster of {len(addresses)} does not "
            "have: give each process a type and an index of the cluster."
        )
    nodes = len({address.rsplit(":", 1)[0] for address in addresses})
    return Cluster(len(addresses), place, nodes, "TF_CONFIG", addresses)


def _from_keras_variables(environment) -> Cluster:
    prefix = "KERAS_DISTRIBUTION_"
    given = environment.get(prefix + "JOB_ADDRESSES", "").split(",")
    addresses = tuple(filter(None, map(str.strip, given)))
    processes = _count(environment, prefix + "NUM_PROCESSES", default=max(len(addresses), 1))
    if processes == 1:
        return Cluster()
    if not addresses or prefix + "PROCESS_ID" not in environment:
        raise InputError(
            f"{prefix}NUM_PROCESSES is {processes}: set {prefix}JOB_ADDRESSES to host:port of the first "
            f"process and {prefix}PROCESS_ID to this one's number as well."
        )
    place = _place(environment, prefix + "PROCESS_ID", processes)
    hosts = {address.rsplit(":", 1)[0] for address in addresses}
    nodes = len(hosts) if len(addresses) == processes else processes
    return Cluster(processes, place, nodes, prefix + "NUM_PROCESSES", addresses)


def _from_torchrun(environment) -> Cluster:
    processes = _count(environment, "WORLD_SIZE", default=1)
    if processes == 1:
        return Cluster()
    here = _count(environment, "LOCAL_WORLD_SIZE", default=processes)
    # torchrun counts its machines; other launchers have the same number of processes on each.
    nodes = _count(environment, "GROUP_WORLD_SIZE", default=max(processes // here, 1))
    return Cluster(processes, _place(environment, "RANK", processes), nodes, "WORLD_SIZE")


def _number(environment, name, default=None) -> int:
    text = environment.get(name, default)
    try:
        return int(text)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a whole number. Received: {text!r}") from None


def _count(environment, name, default=None) -> int:
    count = _number(environment, name, default)
    check_range(name, count, 1, None)
    return count


def _place(environment, name, count) -> int:
    place = _number(environment, name)
    if not 0 <= place < count:
        raise InputError(f"{name} must be 0 to {count - 1}. Received: {place}")
    return place
