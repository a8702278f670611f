"""The stand-in for TensorFlow Serving, through the stubs and with plain HTTP."""

import base64
import json
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.json_format import MessageToDict

from tests.serving.brightness_model import expected, png

pytest.importorskip("tensorflow_serving", reason="needs the extra serving")

from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture
def stub(double):
    with grpc.insecure_channel(double.grpc) as channel:
        yield PredictionServiceStub(channel)


def predict_request(signature="", name="vit", version=None, **inputs):
    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    if version is not None:
        request.model_spec.version.value = version
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


PIXELS = np.full((2, 5, 7, 3), 100)


@pytest.mark.parametrize(
    ("signature", "inputs"),
    [
        ("", {"image_bytes": [png(100)] * 2}),
        ("serving_default", {"image_bytes": [png(100)] * 2}),
        ("images", {"images": PIXELS.astype("float32")}),
        ("images_uint8", {"images": PIXELS.astype("uint8")}),
    ],
)
def test_predict_with_each_signature(signature, inputs, stub):
    answer = stub.Predict(predict_request(signature, **inputs), timeout=20)
    assert answer.model_spec.signature_name == (signature or "serving_default")
    assert answer.model_spec.version.value == 2
    probabilities = tf.make_ndarray(answer.outputs["probabilities"])
    np.testing.assert_allclose(probabilities, [expected(100)] * 2, atol=1e-6)
    assert tf.make_ndarray(answer.outputs["label"]).tolist() == [b"gray"] * 2


def test_predict_an_empty_batch(stub):
    request = predict_request()
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([], tf.string))
    answer = stub.Predict(request, timeout=20)
    assert tf.make_ndarray(answer.outputs["probabilities"]).shape == (0, 3)


REFUSED = {
    "name": ({"name": "x", "image_bytes": [b""]}, "NOT_FOUND", "Servable not found for request: Latest(x)"),
    "version": (
        {"version": 9, "image_bytes": [b""]},
        "NOT_FOUND",
        "Servable not found for request: Specific(vit, 9)",
    ),
    "signature": (
        {"signature": "x", "image_bytes": [b""]},
        "FAILED_PRECONDITION",
        'Serving signature key "x" not found.',
    ),
    "input's name": ({"image": [b""]}, "INVALID_ARGUMENT", "input size does not match signature"),
    "one input more": (
        {"image_bytes": [b""], "x": [1]},
        "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1",
    ),
    "input's type": ({"image_bytes": [1.0]}, "INVALID_ARGUMENT", "Expects image_bytes to be string"),
    "input's shape": (
        {"image_bytes": [[b""]]},
        "INVALID_ARGUMENT",
        "Expects image_bytes to be string (None,)",
    ),
    "damaged image": ({"image_bytes": [png(0)[:-20]]}, "INVALID_ARGUMENT", "Invalid PNG data"),
}


@pytest.mark.parametrize(("options", "code", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_predict_refused(options, code, text, stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(predict_request(**options), timeout=20)
    assert caught.value.code().name == code
    assert text in caught.value.details()


def stored_signature_def(double):
    stored = SavedModel.FromString((double.folder / "2" / "saved_model.pb").read_bytes())
    return dict(stored.meta_graphs[0].signature_def)


def test_metadata_are_those_of_the_file(double, stub):
    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "vit"
    answer = stub.GetModelMetadata(request, timeout=20)
    found = SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(found)
    assert dict(found.signature_def) == stored_signature_def(double)
    assert answer.model_spec.version.value == 2


@pytest.mark.parametrize("fields", [[], ["nosuch"]])
def test_metadata_refused(fields, stub):
    request = GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "vit"
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModelMetadata(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# REST


def http(double, path, body=None):
    """The status and the JSON of a response."""
    try:
        with urllib.request.urlopen(f"http://{double.rest}{path}", body, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_rest_status(double):
    version = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert http(double, "/v1/models/vit") == (
        200,
        {"model_version_status": [{"version": "2", **version}, {"version": "1", **version}]},
    )
    assert http(double, "/v1/models/x") == (404, {"error": "Could not find any versions of model x"})


def test_rest_metadata_are_those_of_the_file(double):
    status, answer = http(double, "/v1/models/vit/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "vit", "signature_name": "", "version": "2"}
    stored = SignatureDefMap(signature_def=stored_signature_def(double))
    options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
    assert answer["metadata"]["signature_def"] == MessageToDict(stored, **options)


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


def test_rest_predict(double):
    body = json.dumps({"instances": [b64(png(100)), b64(b"no image")]}).encode()
    status, answer = http(double, "/v1/models/vit/versions/1:predict", body)
    assert status == 200
    gray, bad = answer["predictions"]
    np.testing.assert_allclose(gray["probabilities"], expected(100), atol=1e-6)
    assert (gray["label"], gray["reject"]) == ("gray", 0)
    assert bad == {"probabilities": [0.0] * 3, "label": "", "confidence": 0.0, "reject": 1}


REST_REFUSED = {
    "name": (
        "/v1/models/x:predict",
        {"instances": [b64(b"")]},
        404,
        "Servable not found for request: Latest(x)",
    ),
    "verb": (
        "/v1/models/vit:ask",
        {"instances": [b64(b"")]},
        400,
        "Malformed request: POST /v1/models/vit:ask",
    ),
    "method": ("/v1/models/vit", {"instances": []}, 400, "Malformed request: POST /v1/models/vit"),
    "signature": (
        "/v1/models/vit:predict",
        {"signature_name": "x", "instances": [b64(b"")]},
        400,
        'Serving signature name: "x" not found in signature def',
    ),
    "instances": ("/v1/models/vit:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
    "base64": ("/v1/models/vit:predict", {"instances": [{"b64": "?"}]}, 400, "Unable to base64 decode"),
    "numbers": ("/v1/models/vit:predict", {"instances": [1, 2]}, 400, "Failed to process element"),
}


@pytest.mark.parametrize(("path", "body", "status", "text"), REST_REFUSED.values(), ids=REST_REFUSED.keys())
def test_rest_refused(path, body, status, text, double):
    found, answer = http(double, path, json.dumps(body).encode())
    assert found == status
    assert text in answer["error"]


def test_rest_refuses_a_body_that_is_not_json(double):
    status, answer = http(double, "/v1/models/vit:predict", b"{")
    assert status == 400
    assert answer["error"].startswith("JSON Parse error")
