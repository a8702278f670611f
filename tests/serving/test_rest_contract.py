"""TensorFlow Serving's REST API as its documentation describes it: its double and `keras-vit serve` alike."""

import http.client
import json

import pytest

from tests.serving.rest_contract import ANSWERED, REFUSED

pytest.importorskip("tensorflow_serving", reason="needs the extra serving")
pytest.importorskip("uvicorn", reason="needs the extra serve")

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture(scope="module")
def contract_model(tmp_path_factory):
    from tests.serving import contract_model

    return contract_model.write(tmp_path_factory.mktemp("contract"))


@pytest.fixture(scope="module")
def double_address(contract_model):
    from tests.serving.serving_double import served

    with served(contract_model) as started:
        yield started.rest


@pytest.fixture(scope="module")
def server_address(contract_model):
    from tests.serving.serving import serving

    with serving(contract_model) as started:
        yield started.address


@pytest.fixture(params=["double", "server"])
def address(request):
    return request.getfixturevalue(f"{request.param}_address")


def ask(address, method, path, body):
    """The status, the type and the JSON of an answer."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(
            method, path, body if body is None or isinstance(body, bytes) else json.dumps(body)
        )
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(("request_", "answer"), ANSWERED.values(), ids=ANSWERED.keys())
def test_answered(request_, answer, address):
    status, kind, content = ask(address, *request_)
    # repr: NaN is not equal to itself.
    assert (status, kind, repr(in_order(json.loads(content)))) == (
        200,
        "application/json",
        repr(in_order(answer)),
    )


def in_order(value):
    """The same with the keys of each object in order: they have none in JSON."""
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value)}
    return [in_order(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("request_", "status", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(request_, status, text, address):
    found, kind, content = ask(address, *request_)
    answer = json.loads(content)
    assert list(answer) == ["error"]
    assert text in answer["error"]
    assert (found, kind) == (status, "application/json")


def test_metadata_are_the_same(double_address, server_address):
    path = "/v1/models/half_plus_three/metadata"
    answers = [json.loads(ask(address, "GET", path, None)[2]) for address in (double_address, server_address)]
    assert answers[0] == answers[1]
    assert answers[0]["model_spec"] == {"name": "half_plus_three", "signature_name": "", "version": "123"}
