"""`keras-vit weights`: what is in a source of published weights, or one sentence."""

import json
import subprocess
import sys

import pytest
from safetensors.numpy import save_file

from keras_vit.cli.main import main
from keras_vit.process.exit_codes import FINE, WRONG_USAGE
from tests.helpers.paths import ROOT, SHARED
from tests.helpers.published import recorded, tensors_of
from tests.helpers.random_tensors import random_tensors

pytestmark = pytest.mark.same_on_every_backend

CASE = recorded("timm")["token"]
LONE = ("--num-heads", "4", "--mean", "0.5", "--std", "0.25")


@pytest.fixture
def folder(tmp_path):
    """Weights of timm with their config, which tells everything."""
    save_file(tensors_of(CASE), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CASE["config"]))
    return tmp_path


@pytest.fixture
def lone(tmp_path):
    """The weights alone."""
    save_file(tensors_of(CASE), tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def shown(capsys, *arguments):
    """What the command prints."""
    assert main(["weights", *map(str, arguments)]) == FINE
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def refused(capsys, *arguments):
    """The sentence of the command."""
    assert main(["weights", *map(str, arguments)]) == WRONG_USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("keras-vit: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_a_folder(folder, capsys):
    parameters = sum(tensor.size for tensor in tensors_of(CASE).values())
    rows = [line.split(maxsplit=1) for line in shown(capsys, folder).splitlines()]
    found = {name: value for name, value in rows if name != "told"}
    assert found["source"] == str(folder)
    assert found["family"] == "timm"
    assert found["architecture"] == "ViT with patches of 8, dim 32, depth 2, 4 heads, mlp_dim 128"
    assert found["parameters"] == f"{parameters:,}"
    assert found["images"] == "16 x 16 x 3, resized by bicubic interpolation"
    assert found["pixels"] == "in 0..1, less 0.5 0.5 0.5, divided by 0.5 0.5 0.5"
    assert found["classes"] == "5"
    assert found["licence"] == "apache-2.0"
    assert found["unused"] == found["new"] == "none"
    (told,) = [value for name, value in rows if name == "told" and "config" in value]
    assert "num_heads 4" in told
    assert "mean 0.5 0.5 0.5" in told


def test_as_json(folder, capsys):
    found = json.loads(shown(capsys, folder, "--json"))
    assert found["parameters"] == sum(tensor.size for tensor in tensors_of(CASE).values())
    assert found["num_classes"] == 5
    assert found["config"]["num_heads"] == 4
    assert found["licence"] == "apache-2.0"
    assert len(found["sha256"]) == 64


def test_what_a_file_alone_does_not_tell_is_given(lone, capsys):
    assert "does not tell num_heads: give it as arguments (on the command line --num-heads)" in refused(
        capsys, lone
    )
    found = json.loads(shown(capsys, lone, *LONE, "--interpolation", "bilinear", "--json"))
    assert found["config"]["num_heads"] == 4
    assert (found["mean"], found["std"]) == ([0.5] * 3, [0.25] * 3)
    assert found["interpolation"] == "bilinear"
    assert {found["told_by"][name] for name in ("num_heads", "mean", "std", "interpolation")} == {"argument"}


def test_the_config_beside_a_file(folder, capsys):
    """The sentence about a file alone says to put it there."""
    assert "config.json beside the file was read" in shown(
        capsys, (folder / "model.safetensors").rename(folder / "mine.safetensors")
    )


def test_a_run_of_an_earlier_version(capsys):
    found = json.loads(shown(capsys, ROOT / "tests" / "fixtures" / "version_0_1_0" / "run", "--json"))
    assert found["family"] == "keras_vit"
    assert found["class_names"][:2] == ["crazing", "inclusion"]
    assert found["image_shape"] == [28, 28, 1]
    assert found["unused"] == found["new"] == []


def test_neither_keras_nor_torch_is_imported(folder):
    script = (
        "import sys\n"
        "from keras_vit.cli.main import main\n"
        "code = main(['weights', sys.argv[1]])\n"
        "sys.exit(code or sorted({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (FINE, "")


MISTAKES = {
    "no such file": (["nosuch.pth"], "There is no file or folder nosuch.pth"),
    "no heads": (["--num-heads", "0"], "num_heads"),
    "heads that do not divide": (["--num-heads", "5"], "5"),
    "a word for a number": (["--norm-epsilon", "small"], "--norm-epsilon must be a number"),
    "no such activation": (["--activation", "sigmoid"], "--activation must be one of 'gelu', 'gelu_tanh'"),
    "two means for three channels": (["--mean", "0.1", "0.2"], "mean must be one number, or 3"),
    "a negative epsilon": (["--norm-epsilon", "-1"], "norm_epsilon must be above 0.0"),
    "an option of another command": (["--epochs", "3"], "--epochs is not an option of keras-vit weights"),
}


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake(arguments, words, lone, capsys):
    source = [] if arguments[0].startswith("nosuch") else [lone, *LONE]
    assert words in refused(capsys, *source, *arguments)


def test_weights_of_another_architecture(tmp_path, capsys):
    shapes = {"conv1.weight": (8, 3, 7, 7), "layer1.0.conv1.weight": (8, 8, 3, 3), "fc.weight": (5, 8)}
    save_file(random_tensors(shapes), tmp_path / "resnet.safetensors")
    message = refused(capsys, tmp_path / "resnet.safetensors")
    assert "by its tensor names it is a ResNet" in message

    shapes = {"trunk.weight": (8, 3), "fc.weight": (5, 8)}
    save_file(random_tensors(shapes), tmp_path / "unknown.safetensors")
    message = refused(capsys, tmp_path / "unknown.safetensors")
    assert "trunk.weight" in message
    assert "has no tensor names of a" in message


@pytest.mark.parametrize(
    ("name", "architecture", "parameters", "classes"),
    [
        ("vit_tiny_patch16_224.safetensors", "Ti/16", 5_717_416, 1000),
        (
            "vit_mnist.pt",
            "defect/4 with no head_hidden_dim, activation='relu', norm_epsilon=1e-05",
            499_722,
            10,
        ),
    ],
)
def test_the_shared_weights(name, architecture, parameters, classes, capsys):
    path = SHARED / "weights" / name
    if not path.exists():
        pytest.skip("needs ../shared/weights")
    found = json.loads(shown(capsys, path, "--json"))
    assert (found["architecture"], found["parameters"], found["num_classes"]) == (
        architecture,
        parameters,
        classes,
    )
    assert found["unused"] == found["new"] == []
