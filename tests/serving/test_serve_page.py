"""The page of `keras-vit serve` in a real browser, with a bundle; `test_serve_run.py` has one with a run."""

import base64
import json

import pytest

from tests.helpers.browser import Tab, chromium
from tests.serving.brightness_model import png

pytest.importorskip("uvicorn", reason="needs the extra serve")

pytestmark = pytest.mark.same_on_every_backend
CLASSES = ["<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "light\"\u202e'&amp;"]
ANSWERED = "#answer:not([hidden]), #error:not([hidden])"


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def bundle_server(tmp_path_factory):
    """A bundle whose class names are HTML."""
    from tests.serving import brightness_model
    from tests.serving.serving import serving

    folder = brightness_model.write(tmp_path_factory.mktemp("models") / "vit" / "1")
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "serving.json").write_text(json.dumps({"class_names": CLASSES}))
    with serving(folder) as started:
        yield started


def drop(page, name, content, kind="image/png"):
    """Drops a file on the page, as a file manager does."""
    page.evaluate(
        """([name, content, kind]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name, { type: kind }));
            document.getElementById("drop").dispatchEvent(
                new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [name, base64.b64encode(content).decode(), kind],
    )
    page.wait_for_selector(ANSWERED)


@pytest.mark.parametrize("width", [1100, 390])
def test_a_picture_is_dropped_and_its_answer_read(width, browser, bundle_server):
    tab = Tab(browser, width, offline=False)
    page, errors = tab.page, tab.errors
    page.set_default_timeout(120_000)
    page.on("dialog", lambda dialog: errors.append(dialog.message) or dialog.dismiss())
    page.goto(f"http://{bundle_server.address}/")
    drop(page, "<b>gray</b>.png", png(128))
    assert page.inner_text("#label") == "gray"
    assert page.inner_text("#file-name") == "<b>gray</b>.png"
    names = page.locator("#classes .name").all_inner_texts()
    assert names[0] == CLASSES[1]
    assert set(names) == {*CLASSES[:2], "light\"\\u202e'&amp;"}
    assert page.locator("#switch").is_hidden()  # a bundle has no map
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    drop(page, "white.png", png(255))
    assert "Rejected" in page.inner_text("#notes")
    drop(page, "text.png", b"no image")
    assert page.inner_text("#error").startswith("text.png: it cannot be used: not a readable")
    assert page.locator("#answer").is_hidden()
    # A refused file is an error in the console; nothing of the policy, no script of a class name.
    assert [text for text in errors if "400" not in text] == []
