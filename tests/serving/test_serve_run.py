"""A run behind `keras-vit serve`, on each backend: the answers of `predict`, and the page's."""

import http.client
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

import keras_vit
from keras_vit.runs.folder import load_run
from keras_vit.serving import client
from tests.helpers.browser import Tab, chromium

pytest.importorskip("uvicorn", reason="needs the extra serve")


@pytest.fixture(scope="module")
def server(rejecting):
    from tests.serving.serving import serving

    with serving(rejecting) as started:
        yield started


@pytest.fixture(scope="module")
def files(drawn_images, tmp_path_factory):
    """Some images of the run, and what is none of its kind."""
    folder = tmp_path_factory.mktemp("files")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), "uint8")
    Image.fromarray(noise).save(folder / "noise.png")
    return [*sorted(drawn_images.rglob("*.png"))[::9], folder / "noise.png"]


def test_request_answers_as_predict(server, rejecting, files, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    answers = client.request(server.address, [*files, tmp_path / "text.png"])
    for answer, expected in zip(answers, keras_vit.predict(rejecting, files), strict=False):
        assert (answer.label, answer.reject, answer.refer) == (
            expected.label,
            expected.reject,
            expected.refer,
        )
        np.testing.assert_allclose(answer.probabilities, list(expected.probabilities.values()), atol=1e-5)
    assert (answers[-1].label, answers[-1].reject) == (None, True)


def test_signatures_are_those_of_the_bundle(server):
    found = client.signatures(server.address)
    assert found["serving_default"]["inputs"] == {"image_bytes": "string (?)"}
    outputs = {"confidence": "float32 (?)", "label": "string (?)", "probabilities": "float32 (?, 3)"}
    assert outputs.items() <= found["serving_default"]["outputs"].items()
    assert found["images"]["inputs"] == {"images": "float32 (?, ?, ?, ?)"}
    assert found["images_uint8"]["inputs"] == {"images": "uint8 (?, ?, ?, ?)"}
    assert found["features"]["outputs"] == {"features": "float32 (?, 8)", "reject": "int32 (?)"}


def test_pixels_and_files_have_the_same_answer(server, files):
    pixels = np.asarray(Image.open(files[0]).convert("L"))[..., None]
    rest = client.Rest(server.address, "vit", None, 60)
    of_file = rest.predict([files[0].read_bytes()])["probabilities"]
    for dtype in ("float32", "uint8"):
        name = "images" if dtype == "float32" else "images_uint8"
        of_pixels = rest.predict_arrays(name, {"images": pixels[None].astype(dtype)})["probabilities"]
        np.testing.assert_allclose(of_pixels, of_file, atol=1e-5)


def post(address, body, path="/answer", **headers):
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request("POST", path, body, {"X-Keras-Vit-Page": "1", **headers})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_the_page_gets_the_answer_and_a_map(server, rejecting, files):
    status, answer = post(server.address, files[0].read_bytes())
    (expected,) = keras_vit.predict(rejecting, files[:1])
    assert status == 200
    assert (answer["label"], answer["reject"], answer["refer"]) == (
        expected.label,
        expected.reject,
        expected.refer,
    )
    assert {one["name"]: pytest.approx(one["probability"], abs=1e-5) for one in answer["classes"]} == (
        expected.probabilities
    )
    assert [one["name"] for one in answer["classes"] if one["named"]] == [expected.label]
    assert answer["picture"].startswith("data:image/png;base64,")
    (explained,) = load_run(rejecting).explain(files[:1])
    values = np.array(answer["map"]["values"])
    assert values.shape == explained.gradient_weighted.shape
    scaled = explained.gradient_weighted / max(explained.gradient_weighted.max(), 1e-9)
    assert np.argmax(values) == np.argmax(scaled)
    assert answer["map"]["box"] == [0, 0, 1, 1]


def encoded(kind, mode="L"):
    written = io.BytesIO()
    Image.new(mode, (30, 20)).save(written, kind)
    return written.getvalue()


def test_the_page_takes_files_that_no_bundle_decodes(server):
    of_tiff, of_png = (post(server.address, encoded(kind)) for kind in ("TIFF", "PNG"))
    assert of_tiff == of_png
    assert of_png[0] == 200


UNUSABLE = {
    "no bytes": (b"", "the file is empty"),
    "text": (b"<script>alert(1)</script>", "it cannot be used: "),
    "a PNG cut short": (encoded("PNG")[:-20], "it cannot be used: "),
    "a TIFF cut short": (encoded("TIFF")[:60], "it cannot be used"),
    "random bytes": (os.urandom(500), "it cannot be used: "),
}


@pytest.mark.parametrize(("content", "text"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_the_page_says_what_is_no_image(content, text, server):
    status, answer = post(server.address, content)
    assert status == 400
    assert text in answer["error"]


COVERED = """() => {
    const map = document.getElementById("map");
    return map.getContext("2d").getImageData(0, 0, map.width, map.height).data.some((value) => value > 0);
}"""


@pytest.mark.same_on_every_backend
def test_a_file_and_the_camera_with_the_map_of_a_run(server, drawn_images):
    with chromium() as browser:
        tab = Tab(browser, offline=False)
        page, errors = tab.page, tab.errors
        page.set_default_timeout(120_000)
        page.goto(f"http://{server.address}/")
        page.set_input_files("#file", sorted(drawn_images.rglob("*.png"))[0])
        page.wait_for_selector("#map:not([hidden])")
        assert page.inner_text("#label") in ("dots", "lines", "plain")
        assert page.evaluate(COVERED)
        page.uncheck("#show")
        assert page.locator("#map").is_hidden()
        page.click("#camera")
        # Its policy lets nothing be evaluated while it waits.
        while not page.evaluate("document.getElementById('video').videoWidth"):
            page.wait_for_timeout(50)
        page.click("#take")
        page.locator("#file-name", has_text="camera").wait_for()
        page.click("#stop")
        assert page.locator("#ways").is_visible()
        assert errors == []
