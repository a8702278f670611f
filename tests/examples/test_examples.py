"""The scripts in examples/ run as they stand, and find what their images show."""

import importlib.util
import re
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

from tests.distribution.processes import environment
from tests.helpers.paths import ROOT

BACKEND = keras.backend.backend()
FOLDER = ROOT / "examples"

pytestmark = pytest.mark.long


def run_main(name, *arguments):
    """`main` of a script, in this process."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(*arguments)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="MirroredStrategy is TensorFlow's")
def test_layers_and_a_vit_under_a_strategy_of_the_user():
    """In a process of its own, because TensorFlow divides the CPU before it starts."""
    script = str(FOLDER / "mirrored_strategy.py")
    done = subprocess.run([sys.executable, script], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "2 devices" in done.stdout
    accuracies = dict(re.findall(r"^(\w+): accuracy ([\d.]+)%$", done.stdout, re.MULTILINE))
    assert accuracies.keys() == {"model_by_hand", "vit"}
    assert min(map(float, accuracies.values())) > 90


@pytest.mark.same_on_every_backend
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # KerasTuner's promotions
@pytest.mark.filterwarnings("ignore:Even though the .tf.config.experimental_run_functions_eagerly")
def test_hyperband_of_keras_tuner(tmp_path, capsys):
    tf.config.run_functions_eagerly(True)  # the models are tiny: TensorFlow traces longer than it trains
    try:
        run_main("hyperband", str(tmp_path))
    finally:
        tf.config.run_functions_eagerly(False)
    printed = capsys.readouterr().out
    assert re.search(r"\{'patch_size': [48], 'depth': [12], 'num_heads': [24], 'dim': (16|32)\}", printed)
    assert float(re.search(r"accuracy ([\d.]+)%", printed)[1]) > 80


# Keras gives it to jax2tf.
@pytest.mark.filterwarnings("ignore:The `native_serialization` parameter:DeprecationWarning")
def test_the_exported_model_is_called_by_tensorflow(tmp_path, capsys):
    run_main("export_model", str(tmp_path))
    printed = capsys.readouterr().out
    if BACKEND == "torch":
        assert "load it in a process with KERAS_BACKEND=tensorflow" in printed
        assert (tmp_path / "model.keras").is_file()
    else:
        assert "TensorFlow's answers differ from Keras's by" in printed
