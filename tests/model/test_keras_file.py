"""`.keras` files that claim more than they hold are refused before Keras builds anything."""

import json
import time

import pytest

from keras_vit.errors import InputError
from keras_vit.model.vit import ViT
from keras_vit.runs.folder import load_model
from tests.helpers import hostile
from tests.helpers.hostile import CONFIG, WEIGHTS, with_config, with_weights, write_zip

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "model.keras"
    ViT((28, 28, 1), num_classes=3, patch_size=14, dim=16, depth=2, num_heads=2).save(path)
    return hostile.parts_of(path)


CLAIMS = {
    "blocks": {"depth": 10**9},
    "some thousand blocks": {"depth": 5000, "dim": 2, "num_heads": 1, "mlp_dim": 1},
    "dim": {"dim": 2 * 10**9},
    "mlp": {"mlp_dim": 10**12},
    "classes": {"num_classes": 10**10},
    "registers": {"num_registers": 10**9},
    "head": {"head_hidden_dim": 10**9},
    "heads": {"num_heads": 1, "head_dim": 10**9},
    "positions": {"image_shape": [280_000, 280_000, 3]},
    "channels": {"image_shape": [28, 28, 10**9]},
}
CHANGES = {
    **{
        name: (lambda parts, given=given: with_config(parts, **given), r"claims a ViT of [\d,]+ parameters")
        for name, given in CLAIMS.items()
    },
    "computed positions": (
        lambda parts: with_config(parts, position="sincos2d", image_shape=[280_000, 280_000, 1]),
        "whose positions do not fit into memory",
    ),
    "a word for a number": (lambda parts: with_config(parts, depth="many"), "depth must be a whole number"),
    "a negative number": (lambda parts: with_config(parts, dim=-1), "dim must be 1 or more"),
    "deep JSON": (lambda parts: {**parts, CONFIG: b"[" * 200_000}, "cannot be read as a Keras model"),
    "a list": (lambda parts: {**parts, CONFIG: b"[]"}, "cannot be read as a Keras model"),
    "a long config": (lambda parts: {**parts, CONFIG: b" " * 2_000_000}, "more than 1,000,000 bytes"),
    "no config": (lambda parts: {WEIGHTS: parts[WEIGHTS]}, "cannot be read as a Keras model"),
    "no weights": (lambda parts: {CONFIG: parts[CONFIG]}, "cannot be read as a Keras model"),
    "weights of nothing": (lambda parts: {**parts, WEIGHTS: b""}, "cannot be read as a Keras model"),
    "another model": (
        lambda parts: {
            **parts,
            CONFIG: json.dumps({"class_name": "Functional", "config": {"units": 10**12}}).encode(),
        },
        "is a 'Functional' of Keras, not a ViT of keras_vit",
    ),
    **{
        name: (lambda parts, change=change: with_weights(parts, change), message)
        for name, (change, message) in hostile.HDF5_BOMBS.items()
    },
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_a_file_that_claims_too_much_is_refused_at_once(change, message, parts, tmp_path):
    path = write_zip(tmp_path / "model.keras", change(parts))
    begin = time.process_time()
    with pytest.raises(InputError, match=message) as refusal:
        load_model(path)
    assert time.process_time() - begin < 5  # ten thousand blocks alone would take minutes
    assert str(refusal.value).startswith(str(path))


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "metadata.json", "assets/more"])
def test_a_file_that_inflates_is_refused(name, parts, tmp_path):
    path = write_zip(tmp_path / "model.keras", {**parts, name: hostile.ZEROS}, compressed=True)
    assert path.stat().st_size < 300_000
    with pytest.raises(InputError, match=r"claims to hold 8\d\.?\d* MB of data and has"):
        load_model(path)


def test_a_compressed_file_that_is_honest_is_read(parts, tmp_path):
    model = load_model(write_zip(tmp_path / "model.keras", parts, compressed=True))
    assert (model.config.dim, model.config.depth) == (16, 2)


def test_there_is_no_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_model(tmp_path / "model.keras")
