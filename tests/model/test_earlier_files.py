"""Models that version 0.1.0 saved load with the same logits."""

import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_vit import ViT
from tests.helpers.checks import to_numpy
from tests.helpers.paths import ROOT

EARLIER = ROOT / "tests" / "fixtures" / "version_0_1_0"


@pytest.fixture(params=["layer_scale", "map_pool"])
def name(request):
    return request.param


def test_the_logits_are_the_same(name):
    model = keras.saving.load_model(EARLIER / f"{name}.keras")
    arrays = np.load(EARLIER / f"{name}.npz")
    logits = to_numpy(model(arrays["images"]))
    np.testing.assert_allclose(logits, arrays["logits"], atol=1e-6)
    assert np.ptp(logits, axis=0).max() > 1e-3, "the image makes no difference"


def test_a_saved_copy_is_the_same_model(name, tmp_path):
    """The copy has the current layout."""
    model = keras.saving.load_model(EARLIER / f"{name}.keras")
    model.save(tmp_path / "copy.keras")
    copy = keras.saving.load_model(tmp_path / "copy.keras")
    for weight, other in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(other), to_numpy(weight), err_msg=weight.path)


def test_the_weights_are_in_the_order_of_version_0_1_0():
    """Checkpoints hold the weights as a list; those of a block began with its two scales."""
    model = keras.saving.load_model(EARLIER / "layer_scale.keras")
    block = model.get_layer("block_0")
    with stored(EARLIER / "layer_scale.keras") as file:
        own = file["layers/encoder_block/vars"]
        for weight, key in zip(block.get_weights()[:2], ("0", "1"), strict=True):
            assert np.ptp(weight) > 0
            np.testing.assert_array_equal(weight, own[key][()])
    names = [weight.path.removeprefix("block_0/") for weight in block.weights]
    assert names[:3] == ["attention_scale/scale", "mlp_scale/scale", "attention_norm/gamma"]


@pytest.mark.parametrize(
    ("options", "places"),
    [
        (dict(), {"projection/vars/0", "projection/vars/1"}),
        (
            dict(stem="conv"),
            {f"convolutions/conv2d{suffix}/vars/0" for suffix in ("", "_1")}
            | {f"norms/batch_norm{suffix}/vars/{i}" for suffix in ("", "_1") for i in range(4)},
        ),
    ],
    ids=["linear", "conv"],
)
def test_the_places_of_the_patch_embedding_in_a_file(options, places, tmp_path):
    """Those of version 0.1.0: Keras names them after attributes, and properties count."""
    model = ViT((8, 8, 1), 2, 4, dim=8, depth=1, num_heads=1, **options)
    model.save(tmp_path / "model.keras")
    with stored(tmp_path / "model.keras") as file:
        found = file["layers/patch_embed"]
        names = set()
        found.visititems(lambda name, item: names.add(name) if isinstance(item, h5py.Dataset) else None)
    assert names == places


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("keep", [(), ("0",)], ids=["none", "one"])
def test_a_file_without_the_scales_does_not_load(keep, tmp_path):
    """Weights that are missing in the file are an error."""
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(EARLIER / "layer_scale.keras") as archive:
        archive.extractall(tmp_path / "inside")
    with h5py.File(tmp_path / "inside" / "model.weights.h5", "r+") as file:
        own = file["layers/encoder_block/vars"]
        for key in set(own) - set(keep):
            del own[key]
    shutil.make_archive(str(tmp_path / "model"), "zip", tmp_path / "inside")
    (tmp_path / "model.zip").rename(path)
    with pytest.raises(ValueError, match=r"objects could not be loaded|expected \d variables"):
        keras.saving.load_model(path)


def test_one_model_takes_the_weights_of_both_layouts(tmp_path):
    """`load_weights` reads an earlier file, then a new one."""
    loaded = keras.saving.load_model(EARLIER / "layer_scale.keras")
    model = ViT.from_config(loaded.get_config())
    loaded.save_weights(tmp_path / "new.weights.h5")
    with zipfile.ZipFile(EARLIER / "layer_scale.keras") as archive:
        archive.extract("model.weights.h5", tmp_path)
    for file in ("model.weights.h5", "new.weights.h5", "model.weights.h5"):
        for weight in model.weights:
            weight.assign(np.full(weight.shape, 9.0))
        model.load_weights(tmp_path / file)
        for weight, other in zip(model.weights, loaded.weights, strict=True):
            np.testing.assert_array_equal(to_numpy(weight), to_numpy(other), err_msg=weight.path)


def stored(path):
    """The weights in a .keras file, open."""
    archive = zipfile.ZipFile(path)
    return h5py.File(archive.open("model.weights.h5"), "r")
