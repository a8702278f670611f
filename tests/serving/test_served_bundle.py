"""An exported run, served by the stand-in for TensorFlow Serving and asked by the client."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_vit import predict
from keras_vit.serving import client
from tests.helpers import tiny
from tests.serving.protocols import both

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture(scope="module")
def double(bundle):
    from tests.serving.serving_double import served

    with served(bundle.models / bundle.name) as started:
        yield started


@pytest.fixture(scope="module")
def predicted(run, drawn_images):
    """The answers of Keras about nine of the images."""
    files = [drawn_images / name / f"{i}.png" for name in tiny.CLASSES for i in range(3)]
    return predict(run, files)


def cut_jpeg():
    file = io.BytesIO()
    Image.fromarray(tiny.pixels("dots", np.random.default_rng(0))).save(file, "JPEG")
    return file.getvalue()[:-200]


@both
def test_the_answers_are_those_of_keras(protocol, double, bundle, predicted, tmp_path):
    bad = {"text": b"no image", "empty": b"", "truncated": cut_jpeg()}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    files = [item.image for item in predicted]
    files[4:4] = [str(tmp_path / name) for name in bad]
    address = getattr(double, protocol)
    answers = client.request(address, files, name=bundle.name, protocol=protocol, batch_size=5)
    assert [answer.image for answer in answers] == files
    for answer in answers[4:7]:
        assert (answer.label, answer.reject) == (None, True)
        assert answer.error == "the server cannot decode it as an image"
    del answers[4:7]
    labels = client.read_labels(bundle.path / "assets.extra" / "labels.txt")
    for expected, found in zip(predicted, client.to_json(answers, labels), strict=True):
        assert found["label"] == expected.label
        assert found["error"] is None
        assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
        assert found["prediction_set"] == list(expected.prediction_set)
        assert found["refer"] == expected.refer


@both
def test_the_signatures_are_those_of_an_export(protocol, double, bundle):
    found = client.signatures(getattr(double, protocol), name=bundle.name, version=1, protocol=protocol)
    inputs = {name: sides["inputs"] for name, sides in found.items()}
    assert inputs == {
        "features": {"image_bytes": "string (?)"},
        "images": {"images": "float32 (?, ?, ?, ?)"},
        "images_uint8": {"images": "uint8 (?, ?, ?, ?)"},
        "serving_default": {"image_bytes": "string (?)"},
    }
    assert found["serving_default"]["outputs"] == {
        "confidence": "float32 (?)",
        "label": "string (?)",
        "probabilities": f"float32 (?, {len(tiny.CLASSES)})",
        "prediction_set": f"int32 (?, {len(tiny.CLASSES)})",
        "refer": "int32 (?)",
        "reject": "int32 (?)",
    }
