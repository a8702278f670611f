"""docs/cluster.md: its commands are valid, its files exist, and its figures are those of the script."""

import ast
import dataclasses
import importlib.util
import re
import shlex
import sys

import pytest
import tyro

import keras_vit
from keras_vit.cli.main import parse
from keras_vit.distribution import Distribution
from keras_vit.distribution.cluster import Cluster, read_cluster
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.same_on_every_backend

PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
FENCED = re.findall(r"^ *```bash\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [*INLINE, *(line.strip() for block in FENCED for line in block.splitlines())]
TRAIN = [found[1] for line in COMMANDS if (found := re.search(r"keras[-_]vit (train .*)", line))]
SCRIPTS = [line for line in COMMANDS if re.search(r"examples/cluster/\w+\.(sh|sbatch) ", line)]
SCALING = [line for line in COMMANDS if line.startswith("python benchmarks/scaling.py")]
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def scaling():
    """The script as a module, also in sys.modules, where dataclasses need it."""
    path = ROOT / "benchmarks" / "scaling.py"
    spec = importlib.util.spec_from_file_location("scaling_of_docs", path)
    module = sys.modules["scaling_of_docs"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scaling_of_docs"]


def test_all_kinds_of_commands_are_found():
    assert len(TRAIN) == 6
    assert len(SCRIPTS) == 5
    assert len(SCALING) == 3


@pytest.mark.parametrize("line", TRAIN)
def test_train_commands_are_valid(line):
    assert type(parse(shlex.split(line))).__name__ == "Train"


@pytest.mark.parametrize("line", SCRIPTS)
def test_options_after_a_script_are_valid(line):
    """The scripts accept these options in addition to their own."""
    own = "train --data images --out runs/s16 --distribute data --nodes 2"
    command = parse(shlex.split(f"{own} {line[line.index('--') :]}"))
    assert command.run.model == "S/16"
    assert command.run.distribute == ("model" if "--distribute model" in line else "data")


def test_options_without_a_command_exist(scaling):
    of_others = {"--help", "--requeue", "--host"}  # from tyro, Slurm and `keras-vit search`
    owners = (keras_vit.TrainConfig, keras_vit.Recipe, scaling.Assumptions)
    fields = {field.name for owner in owners for field in dataclasses.fields(owner)}
    named = {line.split()[0] for line in INLINE if line.startswith("--")} - of_others
    assert len(named) >= 15
    assert not [name for name in named if name.removeprefix("--").replace("-", "_") not in fields]


def test_files_exist():
    named = re.findall(r"\b(?:examples|benchmarks|docs|tests|keras_vit)/[\w./-]*\w", PAGE)
    assert len(set(named)) >= 9
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_names_in_the_python_block_exist():
    tree = ast.parse(CODE)
    compile(tree, "docs/cluster.md", "exec")
    owners = {
        "keras_vit": keras_vit,
        "data": keras_vit.ImageData,
        "model": keras_vit.ViT,
        "distribution": Distribution,
    }
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in owners
    }
    assert len(used) >= 10
    assert not [(owner, name) for owner, name in used if not hasattr(owners[owner], name)]


def test_the_tf_config_is_read():
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    expected = Cluster(2, 1, 2, "TF_CONFIG", ("one:12345", "two:12345"))
    assert read_cluster("tensorflow", {"TF_CONFIG": text}) == expected


def test_the_figures_are_those_of_the_script(scaling):
    tables = re.findall(r"^\S+: ([\d,]+) parameters, ([\d.]+) G mult-adds.*?\n\n(.*?)\n\n", PAGE, re.M | re.S)
    assert len(tables) == 2
    for parameters, mult_adds, table in tables:
        for row in table.splitlines()[2:]:
            shown = [float(cell.strip(" %").replace(",", "")) for cell in row.strip("|").split("|")]
            found = scaling.figures(
                int(parameters.replace(",", "")), float(mult_adds) * 1e9, int(shown[0]), scaling.Assumptions()
            )
            expected = [
                found.devices,
                found.bytes_sent / 1e6,
                found.bytes_sent_between_nodes / 1e6,
                found.compute * 1e3,
                found.communication * 1e3,
                found.step * 1e3,
                found.images_per_second,
                found.efficiency * 100,
            ]
            # The mult-adds are shown with four digits, the times with three.
            assert shown == pytest.approx(expected, rel=1e-3, abs=6e-3)


def test_the_assumptions_are_those_of_the_script(scaling):
    rows = re.findall(r"^\| [^|]+ \| ([\d.]+)[^|]* \| `--([\w-]+)` \|$", PAGE, re.MULTILINE)
    shown = {name.replace("-", "_"): float(value) for value, name in rows}
    assert shown == vars(scaling.Assumptions())


def test_scaling_commands_are_valid(scaling):
    for line in SCALING:
        tyro.cli(scaling.Options, args=shlex.split(line)[2:])


def test_the_example_with_another_network_is_right(scaling):
    given = scaling.Assumptions(net_bandwidth=25, utilization=0.5)
    found = scaling.figures(86_567_656, 17.56e9, 64, given).efficiency
    assert f"efficiency of {found:.1%} on 64 devices" in PAGE
