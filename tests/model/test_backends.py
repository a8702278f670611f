"""The same weights give the same logits on every backend. No unused backend is imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vit
from keras_vit import ViT
from tests.helpers.checks import random_input, randomize

BACKENDS = ("tensorflow", "jax", "torch")

PREDICT = """
import pathlib, sys
import keras, numpy as np
from keras_vit import ViT
folder = pathlib.Path(sys.argv[1])
for path in sorted(folder.glob("*.keras")):
    model = keras.saving.load_model(path)
    model.compile(jit_compile=False)
    logits = model.predict(np.load(path.with_suffix(".input.npy")), verbose=0)
    np.save(path.with_suffix(f".{keras.backend.backend()}.npy"), logits)
"""


def python(code, *arguments, backend=None):
    """Runs code in a new Python process and returns its output."""
    path = [str(Path(keras_vit.__file__).parents[1]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    environment.pop("KERAS_BACKEND", None)
    if backend:
        environment["KERAS_BACKEND"] = backend
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def models():
    conv = ViT.from_variant("defect-conv/4", image_shape=(28, 28, 1), num_classes=6, depth=2)
    everything = dict(
        stem="conv", num_registers=2, position="sincos2d", pooling="map", head_hidden_dim=12, head_dim=12,
        qkv_bias=False, qk_norm=True, activation="swiglu", dropout_rate=0.0, drop_path_rate=0.1,
        layer_scale=0.1, remat=True,
    )  # fmt: skip
    published = dict(
        patch_norm=True, patch_bias=False, projection_bias=False, mlp_bias=False, activation="gelu_tanh",
        pooling="token+distilled", num_registers=1, class_position=False, pre_norm=True, norm_epsilon=1e-5,
        final_norm="pooled", head_hidden_dim=8, head_activation="tanh",
    )  # fmt: skip
    mean = dict(pooling="all", class_token=True, activation="quick_gelu", final_norm="none")
    return {
        "defect": ViT.from_variant("defect/4", image_shape=(28, 28, 1), num_classes=6, depth=2),
        "defect-conv": conv,
        "everything": ViT((16, 24, 4), 5, 4, dim=16, depth=2, num_heads=2, mlp_dim=20, **everything),
        "published": ViT((8, 12, 3), 5, 4, dim=16, depth=2, num_heads=2, **published),
        "mean": ViT((8, 12, 3), 5, 4, dim=16, depth=2, num_heads=2, **mean),
        "gap": ViT((8, 12, 3), 5, 4, dim=16, depth=2, num_heads=2, pooling="gap", num_registers=1),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of models with random weights, with an input and the logits on this backend for each."""
    folder = tmp_path_factory.mktemp("backends")
    for name, model in models().items():
        randomize(model, scale=0.05)
        x = random_input((8, *model.image_shape))
        model.save(folder / f"{name}.keras")
        np.save(folder / f"{name}.input.npy", x)
        model.compile(jit_compile=False)
        np.save(folder / f"{name}.own.npy", model.predict(x, verbose=0))
    return folder


@pytest.mark.long
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_logits(folder, backend):
    """TensorFlow reads the files of the other backends, and they read the files of TensorFlow."""
    own = keras.backend.backend()
    if backend == own or "tensorflow" not in (backend, own):
        pytest.skip(f"{own} and {backend} are each compared with TensorFlow")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    python(PREDICT, folder, backend=backend)
    for path in folder.glob("*.keras"):
        name = path.stem
        expected, logits = (np.load(folder / f"{name}.{kind}.npy") for kind in ("own", backend))
        assert expected.std(axis=0).min() > 1e-2, f"{name}: the images make no difference"
        np.testing.assert_allclose(logits, expected, atol=1e-4, err_msg=name)


def test_the_batch_statistics_of_the_saved_model_are_not_the_initial_ones(folder):
    model = keras.saving.load_model(folder / "defect-conv.keras")
    for norm in model.get_layer("patch_embed").norms:
        _, _, mean, variance = norm.get_weights()
        assert abs(mean).min() > 0
        assert abs(variance - 1).max() > 0.1


@pytest.mark.long
@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_no_tensorflow_on_another_backend(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    code = """
import sys
import keras_vit
model = keras_vit.ViT.from_variant("defect/4", image_shape=(28, 28, 1), num_classes=6)
print(keras_vit.summary(model).totals.mult_adds)
import numpy
model(numpy.zeros((1, 28, 28, 1), "float32"))
print(sorted(name for name in ("jax", "tensorflow", "torch") if name in sys.modules))
"""
    loaded = python(code, backend=backend)
    assert backend in loaded
    assert "tensorflow" not in loaded
    assert "32315136" in loaded


@pytest.mark.same_on_every_backend
def test_importing_the_package_does_not_import_keras():
    code = (
        "import sys, keras_vit; print(keras_vit.__version__, [m in sys.modules for m in ('keras', 'numpy')])"
    )
    assert python(code).split(maxsplit=1) == [keras_vit.__version__, "[False, False]\n"]
