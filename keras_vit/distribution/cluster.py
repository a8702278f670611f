"""Which processes belong to this run, from the environment variables that launchers set."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from keras_vit.errors import InputError


@dataclass(frozen=True)
class Cluster:
    """The processes of a run, and which one of them this process is.

    Args:
        num_processes: number of processes of the run, on all machines.
        process_id: number of this process, from 0. Process 0 is the chief, the only one that writes files.
        nodes: number of machines.
        announced_by: the environment variable that these values come from.
        addresses: `host:port` of all processes, or of the first one; empty if only the launcher knows them.
    """

    num_processes: int = 1
    process_id: int = 0
    nodes: int = 1
    announced_by: str = ""
    addresses: tuple[str, ...] = ()


def read_cluster(backend: str, environment: Mapping[str, str] = os.environ) -> Cluster:
    """Reads what the launcher of this process announces about the run.

    Args:
        backend: `"tensorflow"` reads TF_CONFIG, `"jax"` KERAS_DISTRIBUTION_... or Slurm's variables,
            `"torch"` the variables that torchrun sets.
        environment: the environment variables.

    Raises:
        InputError: a variable cannot be understood, or asks for something that does not work.
    """
    readers = {"tensorflow": _from_tf_config, "jax": _from_keras_variables, "torch": _from_torchrun}
    if backend not in readers:
        return Cluster()
    cluster = readers[backend](environment)
    tasks = _count(environment, "SLURM_STEP_NUM_TASKS", default=1)
    if cluster.num_processes > 1 or tasks == 1:
        return cluster
    if backend == "jax":  # JAX gets the address from Slurm itself
        return Cluster(
            tasks,
            _process_id(environment, "SLURM_PROCID", tasks),
            _count(environment, "SLURM_STEP_NUM_NODES", default=tasks),
            "SLURM_STEP_NUM_TASKS",
        )
    means = "TF_CONFIG" if backend == "tensorflow" else "torchrun"
    raise InputError(
        f"Slurm runs {tasks} tasks of this step, but they do not know about each other: start them with "
        f"{means}, as examples/cluster/slurm_{backend}.sbatch does, or set --distribute none and --ntasks 1."
    )


def current_process_is_chief() -> bool:
    """Whether this process writes files and prints: it is the chief, or the only process."""
    import keras

    return read_cluster(keras.backend.backend()).process_id == 0


def _from_tf_config(environment: Mapping[str, str]) -> Cluster:
    text = environment.get("TF_CONFIG", "")
    if not text.strip():
        return Cluster()
    try:
        config = json.loads(text)
        cluster = {str(kind): hosts for kind, hosts in config.get("cluster", {}).items()}
        if not all(isinstance(hosts, list) for hosts in cluster.values()):
            raise TypeError("the hosts of a task type must be a list")
        task = config.get("task", {})
        kind, index = str(task.get("type", "")), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"TF_CONFIG is not the JSON that TensorFlow expects ({error}): docs/cluster.md has an example."
        ) from error
    if not cluster:
        return Cluster()
    if unusable := sorted(set(cluster) - {"chief", "worker"}):
        raise InputError(
            f"TF_CONFIG has {', '.join(unusable)} tasks, which model.fit of Keras 3 cannot use "
            "(ParameterServerStrategy): list workers only."
        )
    addresses = tuple(cluster.get("chief", []) + cluster.get("worker", []))
    process_id = index + (len(cluster.get("chief", [])) if kind == "worker" else 0)
    if not 0 <= index < len(cluster.get(kind, [])):
        raise InputError(
            f"TF_CONFIG names this process task {kind!r} {index}, which is not in its cluster of "
            f"{len(addresses)}: give each process a type and an index of the cluster."
        )
    nodes = len({address.rsplit(":", 1)[0] for address in addresses})
    return Cluster(len(addresses), process_id, nodes, "TF_CONFIG", addresses)


def _from_keras_variables(environment: Mapping[str, str]) -> Cluster:
    prefix = "KERAS_DISTRIBUTION_"
    given = environment.get(prefix + "JOB_ADDRESSES", "").split(",")
    addresses = tuple(filter(None, map(str.strip, given)))
    processes = _count(environment, prefix + "NUM_PROCESSES", default=max(len(addresses), 1))
    if processes == 1:
        return Cluster()
    if not addresses or prefix + "PROCESS_ID" not in environment:
        raise InputError(
            f"{prefix}NUM_PROCESSES is {processes}: also set {prefix}JOB_ADDRESSES to host:port of the first "
            f"process and {prefix}PROCESS_ID to the number of this one."
        )
    process_id = _process_id(environment, prefix + "PROCESS_ID", processes)
    hosts = {address.rsplit(":", 1)[0] for address in addresses}
    nodes = len(hosts) if len(addresses) == processes else processes
    return Cluster(processes, process_id, nodes, prefix + "NUM_PROCESSES", addresses)


def _from_torchrun(environment: Mapping[str, str]) -> Cluster:
    processes = _count(environment, "WORLD_SIZE", default=1)
    if processes == 1:
        return Cluster()
    here = _count(environment, "LOCAL_WORLD_SIZE", default=processes)
    # torchrun announces the number of machines; other launchers run equally many processes on each.
    nodes = _count(environment, "GROUP_WORLD_SIZE", default=max(processes // here, 1))
    return Cluster(processes, _process_id(environment, "RANK", processes), nodes, "WORLD_SIZE")


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, default)
    try:
        return int(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a whole number. Received: {text!r}") from None


def _count(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    count = _number(environment, name, default)
    if count < 1:
        raise InputError(f"{name} must be 1 or more. Received: {name}={count}")
    return count


def _process_id(environment: Mapping[str, str], name: str, count: int) -> int:
    number = _number(environment, name)
    if not 0 <= number < count:
        raise InputError(f"{name} must be 0 to {count - 1}. Received: {number}")
    return number
