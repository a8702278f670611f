"""That TensorFlow, which reads the images on every backend, leaves the GPUs to the backend."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vit
from keras_vit.data.image_set import ImageSet
from keras_vit.distribution.accelerators import keep_tensorflow_off_gpus

BACKEND = keras.backend.backend()


@pytest.fixture
def hidden(monkeypatch):
    """The calls that hide devices, on a machine that has a GPU."""
    calls = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [f"{kind}:0"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *arguments: calls.append(arguments))
    return calls


def test_gpus_are_hidden_where_the_backend_is_another(hidden):
    keep_tensorflow_off_gpus()
    assert hidden == ([] if BACKEND == "tensorflow" else [([], "GPU")])


@pytest.mark.parametrize("entry", ["load_data", "read_images", "load_model"])
def test_before_the_first_operation(entry, hidden, tmp_path):
    image = np.zeros((8, 8, 1), np.uint8)
    if entry == "load_data":
        names, labels = tuple(f"{i}.png" for i in range(20)), np.arange(20) % 2
        keras_vit.load_data(ImageSet("drawn", ("a", "b"), [image] * 20, names, labels), (8, 8, 1))
    elif entry == "read_images":
        from keras_vit.data.reading import read_images

        read_images([image])
    else:
        from keras_vit.runs.folder import load_model

        keras_vit.ViT((8, 8, 1), 2, patch_size=4, dim=8, depth=1, num_heads=1).save(tmp_path / "m.keras")
        load_model(tmp_path / "m.keras")
    assert bool(hidden) == (BACKEND != "tensorflow")


def test_a_program_that_uses_tensorflow_already_goes_on(monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["GPU:0"])
    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    keep_tensorflow_off_gpus()
