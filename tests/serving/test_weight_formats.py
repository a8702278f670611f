"""The weights of a run as timm and transformers load them: `keras-vit export --format timm|huggingface`."""

import json

import numpy as np
import pytest

from keras_vit.errors import InputError
from keras_vit.model.vit import ViT
from keras_vit.runs.folder import load_run
from keras_vit.serving.bundle import export
from tests.helpers import tiny

FORMATS = {"timm": {"config.json"}, "huggingface": {"config.json", "preprocessor_config.json"}}


@pytest.mark.same_on_every_backend
@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_run_answers_as_before(rejecting, format, tmp_path):
    found = export(rejecting, tmp_path, format=format)
    assert found.path == tmp_path / f"vit-{format}" / "1"
    assert found.comparison.same_class == found.comparison.images > 0
    assert found.comparison.difference < 1e-5
    names = {path.name for path in found.path.iterdir()}
    assert names == FORMATS[format] | {"model.safetensors", "model_card.md"}

    run = load_run(rejecting)
    model = ViT.from_pretrained(found.path)
    images = np.random.RandomState(0).uniform(-1, 1, (4, *model.image_shape)).astype("float32")
    np.testing.assert_allclose(
        model.predict(images, verbose=0), run.model.predict(images, verbose=0), atol=1e-5
    )
    assert model.pretrained.class_names == run.class_names
    assert set(model.pretrained.mean) == set(model.pretrained.std) == {0.5}


def test_the_run_writes_its_weights(rejecting, tmp_path):
    run = load_run(rejecting)
    folder = run.export_weights(tmp_path / "weights", "huggingface")
    config = json.loads((folder / "config.json").read_text())
    assert list(config["id2label"].values()) == list(run.class_names)
    before = tiny.tree(tmp_path)
    with pytest.raises(InputError, match="exists"):
        run.export_weights(folder, "timm")
    assert tiny.tree(tmp_path) == before


@pytest.mark.parametrize("format", FORMATS)
def test_mirror_images_are_not_of_weights(rejecting, format, tmp_path):
    with pytest.raises(InputError, match="--flips-at-test is for models that answer"):
        export(rejecting, tmp_path, format=format, flips=True)
    assert not list(tmp_path.iterdir())
