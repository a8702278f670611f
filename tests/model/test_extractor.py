"""What is inside a ViT, as functional models that save, pickle and join others."""

import pickle

import keras
import numpy as np
import pytest

from keras_vit import ViT
from keras_vit.model.extractor import EXTRACTS
from tests.helpers.checks import random_input, randomize, to_numpy

SIZE = dict(num_classes=3, patch_size=4, dim=8, depth=2, num_heads=2, mlp_dim=12)
KINDS = {
    "token": dict(),
    "map, registers": dict(pooling="map", num_registers=2, final_norm="pooled"),
    "headless": dict(num_classes=0, pooling="gap"),
}


@pytest.fixture(params=KINDS)
def vit(request):
    return randomize(ViT((8, 12, 3), **{**SIZE, **KINDS[request.param]}), scale=0.1)


def all_of(outputs):
    return [to_numpy(y) for y in (outputs if isinstance(outputs, list) else [outputs])]


@pytest.mark.parametrize("what", EXTRACTS)
@pytest.mark.parametrize("vit", ["map, registers"], indirect=True)
def test_extracts_save_pickle_and_join(vit, what, tmp_path):
    model, x = vit.extractor(what), random_input((2, 8, 12, 3))
    expected = all_of(model(x))
    model.save(tmp_path / "extractor.keras")
    images = keras.Input((8, 12, 3))
    joined = keras.Model(images, model(keras.layers.Rescaling(1.0)(images)))
    copies = {
        "file": keras.saving.load_model(tmp_path / "extractor.keras"),
        "pickle": pickle.loads(pickle.dumps(model)),
        "joined": joined,
        "clone": keras.models.clone_model(model),
    }
    copies["clone"].set_weights(model.get_weights())
    for name, copy in copies.items():
        for ours, theirs in zip(expected, all_of(copy(x)), strict=True):
            np.testing.assert_allclose(theirs, ours, atol=1e-6, err_msg=name)
    for ours, theirs in zip(expected, all_of(model.predict(x, verbose=0)), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    # The model itself is as before.
    assert len(vit.weights) == len(ViT.from_config(vit.get_config()).weights)
    np.testing.assert_allclose(to_numpy(vit(x)), to_numpy(copied(vit)(x)), atol=1e-6)


def copied(vit):
    copy = ViT.from_config(vit.get_config())
    copy.set_weights(vit.get_weights())
    return copy


def test_a_feature_map_is_the_patch_tokens_row_by_row(vit):
    x = random_input((2, 8, 12, 3))
    tokens = to_numpy(vit.extractor("patch_tokens")(x))
    made = vit.extractor("feature_map")
    assert made.output_shape == (None, 2, 3, 8)
    np.testing.assert_array_equal(to_numpy(made(x)), tokens.reshape(2, 2, 3, 8))


def test_the_attention_is_of_the_weights_of_the_model(vit):
    model, x = vit.extractor("attention"), random_input((2, 8, 12, 3))
    before = all_of(model(x))
    count = 6 + vit.config.num_first_tokens
    assert [y.shape for y in before] == [(2, 2, count, count)] * 2
    for y in before:
        np.testing.assert_allclose(y.sum(axis=-1), 1, atol=1e-5)
    randomize(vit, seed=1)
    assert all(abs(a - b).max() > 1e-3 for a, b in zip(before, all_of(model(x)), strict=True))
    assert all(y.dtype == "float32" for y in model.outputs)
