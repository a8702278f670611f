"""The page where a person keeps, relabels or drops images."""

import contextlib
import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from keras_vit.data.origin import content_hash
from keras_vit.data.sources import load_image_set
from keras_vit.data.targets import label_text
from keras_vit.errors import InputError
from keras_vit.files import read_csv
from keras_vit.report.labelling import Finding, ImageToCheck, new_folder, write_page
from tests.helpers.browser import Tab, chromium
from tests.helpers.image_files import encoded
from tests.report.pages import EVIL, Page

pytestmark = pytest.mark.same_on_every_backend

CLASSES = ("=1+1", "</script><b>&", 'say "a,\nb"', "été", "'quoted", "-2 % <!--")
"""Names that HTML, JavaScript, CSV and spreadsheets take for something else; read as `shown` writes them."""


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    """Nine images with hostile names, three of each of three hostile classes."""
    folder = tmp_path_factory.mktemp("labelling") / "images"
    for c, name in enumerate(("=1+1", "<b>&'\"", "-été\n")):
        (folder / name).mkdir(parents=True)
        for i, file in enumerate(("a <i>.png", '=b,"c".png', "\u202ed\n.png")):
            (folder / name / file).write_bytes(encoded(3 * c + i, size=(20, 300) if i else (8, 8)))
    return load_image_set(folder)


def to_check(image_set, **changes):
    """Each image of a set, the first one the surest finding; each is suggested to be of the next class."""
    names = image_set.class_names
    return [
        ImageToCheck(
            path=image_set.names[i],
            sha256=content_hash(image_set.images[i]),
            image=image_set.images[i],
            label=label_text(image_set.labels, i, names),
            suggested=names[(image_set.labels[i] + 1) % len(names)],
            score=1 - i / len(image_set),
            findings=(Finding("odd size" if i % 3 else "wrong label", f"{EVIL} {i}"),),
        )
        for i in range(len(image_set))
    ]


def write(folder, image_set, items=None, **options):
    with new_folder(folder) as new:
        write_page(
            new,
            to_check(image_set) if items is None else items,
            title=f"Labels {EVIL}",
            source=EVIL,
            class_names=image_set.class_names,
            **options,
        )
    return folder


@pytest.fixture(scope="module")
def page(image_set, tmp_path_factory):
    return write(tmp_path_factory.mktemp("page") / "audit", image_set)


def picture(path):
    with Image.open(path) as found:
        return found.copy()


def test_the_page_is_plain_and_loads_its_thumbnails_alone(page, image_set):
    found = Page((page / "index.html").read_text(encoding="utf-8"))
    assert found.all("html") == [{"lang": "en"}]
    assert [
        attributes for tag, attributes in found.tags if tag in {"iframe", "object", "embed", "base"}
    ] == []
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert not re.search(r"https?://|url\(|@import", found.source)
    (policy,) = (m["content"] for m in found.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert re.search(r"script-src 'sha256-[\w+/=]{44}'$", policy)
    assert [one.get("type") for one in found.all("script")] == ["application/json", None]
    assert found.source.count("</script") == 2
    data = json.loads(re.search(r'id="data">(.*?)</script>', found.source, re.DOTALL)[1])
    assert [one["label"][0] for one in data["images"]] == [
        label_text(image_set.labels, i, image_set.class_names) for i in range(9)
    ]
    files = [one["file"] for one in data["images"]]
    assert sorted(files) == sorted(f"thumbnails/{path.name}" for path in (page / "thumbnails").iterdir())
    sizes = [picture(page / file).size for file in files]
    assert sorted(sizes) == [(8, 8)] * 3 + [(256, 17)] * 6  # small ones are exact, large ones reduced


def test_the_folder_is_there_whole_or_not_at_all(image_set, tmp_path):
    with contextlib.suppress(RuntimeError), new_folder(tmp_path / "a" / "b") as new:
        (new / "x").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").touch()
    with (
        pytest.raises(InputError, match="exists already: choose another --out"),
        new_folder(tmp_path / "taken"),
    ):
        raise AssertionError
    if os.geteuid():  # root may write everywhere
        (tmp_path / "fixed").mkdir(mode=0o500)
        with pytest.raises(InputError, match="cannot be written to"), new_folder(tmp_path / "fixed" / "x"):
            raise AssertionError


def test_unreadable_images_and_channels_of_measurement(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    pixels = np.zeros((90, 80, 5), np.uint8)
    images = [
        ImageToCheck("broken.png", "", tmp_path / "broken.png"),
        ImageToCheck("five channels", "", pixels),
    ]
    with new_folder(tmp_path / "out") as new:
        write_page(new, images, title="t", source="s", class_names=("a", "b"))
    source = (tmp_path / "out" / "index.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', source, re.DOTALL)[1])
    assert [one.get("file") for one in data["images"]] == [None, "thumbnails/00001.jpg"]
    assert picture(tmp_path / "out" / "thumbnails" / "00001.jpg").mode == "RGB"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def open_page(browser, page, **options):
    tab = Tab(browser, **options)
    tab.page.goto((page / "index.html").as_uri())
    return tab


def actions(text, tmp_path):
    (tmp_path / "fixes.csv").write_text(text, encoding="utf-8", newline="")
    return [(row["path"], row["action"], row["label"]) for row in read_csv(tmp_path / "fixes.csv")]


def test_a_person_decides_with_the_keyboard(browser, page, image_set, tmp_path):
    names = image_set.class_names
    tab = open_page(browser, page)
    press = tab.page.keyboard.press
    assert tab.page.inner_text("#counts") == "0 of 9 decided: 0 kept, 0 relabelled, 0 dropped"
    assert tab.page.is_disabled("#download")
    for key in ("k", "Enter", "d", "3", "ArrowRight", "k", "u", "ArrowLeft", "d", "d", "u"):
        press(key)
    assert tab.page.inner_text("#counts") == "5 of 9 decided: 1 kept, 2 relabelled, 2 dropped"
    # The dialog takes letters for itself; Enter takes the first class that fits.
    press("r")
    tab.page.keyboard.type(names[0][:2])
    press("Enter")
    press("End")
    press("c")  # nothing to clear
    name, text = tab.downloaded("#download")
    assert name == "fixes.csv"
    label = [names[i] for i in image_set.labels]
    wanted = [
        (0, "keep", label[0]),
        (1, "relabel", names[1]),
        (2, "drop", ""),
        (3, "relabel", names[2]),
        (4, "drop", ""),
        (5, "relabel", names[0]),
    ]
    shown_names = [one["path"] for one in data_of(page)["images"]]
    assert actions(text, tmp_path) == [(shown_names[i], action, to) for i, action, to in wanted]
    # The file is one that --fixes takes, on the images as they are.
    (tmp_path / "fixes.csv").write_text(text, encoding="utf-8", newline="")
    fixed = load_image_set(image_set.source, fixes=tmp_path / "fixes.csv")
    assert len(fixed) == 7
    assert not tab.errors


def data_of(page):
    source = (page / "index.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', source, re.DOTALL)[1])


def test_a_person_decides_with_the_mouse(browser, page, image_set, tmp_path):
    tab = open_page(browser, page)
    cards = tab.page.locator(".card")
    assert cards.count() == 9
    assert tab.page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth)")
    cards.nth(2).get_by_role("button", name="Drop").click()
    cards.nth(0).get_by_role("button", name="Keep").click()
    cards.nth(4).get_by_role("button", name="Other").click()
    tab.page.locator("#choose-list button").nth(int(image_set.labels[0])).click()
    cards.nth(8).click()
    tab.page.locator("#actions button").nth(1).click()  # as suggested
    assert tab.page.inner_text("#counts") == "4 of 9 decided: 1 kept, 2 relabelled, 1 dropped"
    found = actions(tab.downloaded("#download")[1], tmp_path)
    assert [action for _, action, _ in found] == ["keep", "drop", "relabel", "relabel"]
    tab.page.click("#undo")
    assert tab.page.inner_text("#counts").startswith("3 of 9")
    # Filters: a kind of finding, a class, what is decided, a part of the path.
    tab.page.select_option("#kind", label="wrong label (3)")
    assert cards.count() == 3
    tab.page.select_option("#kind", index=0)
    tab.page.select_option("#state", label="decided")
    assert cards.count() == 3
    tab.page.select_option("#state", label="not decided")
    tab.page.fill("#search", "nowhere")
    assert cards.count() == 0
    assert tab.page.is_visible("#empty")
    assert not tab.errors


def test_the_progress_is_kept_for_the_same_images_alone(browser, page, image_set, tmp_path):
    tab = open_page(browser, page)
    tab.page.keyboard.press("d")
    tab.page.reload()
    assert tab.page.inner_text("#counts").startswith("1 of 9")
    other = Tab(browser, context=tab.context)
    other.page.goto((page / "index.html").as_uri())
    other.page.keyboard.press("ArrowRight")
    other.page.keyboard.press("k")
    tab.page.locator("#counts", has_text="2 of 9").wait_for()
    another = write(tmp_path / "another", image_set, to_check(image_set)[:8])
    other.page.goto((another / "index.html").as_uri())
    assert other.page.inner_text("#counts").startswith("0 of 8")
    assert not tab.errors + other.errors


def test_an_earlier_download_is_loaded(browser, page, tmp_path):
    tab = open_page(browser, page)
    for key in ("k", "Enter", "d"):
        tab.page.keyboard.press(key)
    (tmp_path / "fixes.csv").write_text(tab.downloaded("#download")[1], encoding="utf-8", newline="")
    again = open_page(browser, page)
    again.page.set_input_files("#file", tmp_path / "fixes.csv")
    again.page.locator("#counts", has_text="3 of 9").wait_for()
    assert again.downloaded("#download")[1] == (tmp_path / "fixes.csv").read_text(encoding="utf-8").replace(
        "\n", "\r\n"
    )
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    again.page.set_input_files("#file", tmp_path / "other.csv")
    again.page.locator("#trouble", has_text="has no row on an image of this page").wait_for()
    assert not tab.errors + again.errors


def test_what_was_decided_before_stays(browser, image_set, tmp_path):
    """A page of images with fixes: its file holds these too, so that one file has all that was decided."""
    whole = load_image_set(image_set.source)
    decided = [("relabel", 2), ("relabel", 2), ("keep", None), ("drop", None), ("keep", None)]
    before = [
        {
            "path": one["path"],
            "sha256": one["sha256"],
            "action": action,
            "label": "" if to is None else label_text(np.array([to]), 0, whole.class_names),
        }
        for one, (action, to) in zip(
            data_of(write(tmp_path / "first", image_set))["images"], decided, strict=False
        )
    ]
    fixed = load_image_set(image_set.source, fixes=before)
    items = to_check(fixed)
    items = [replace(item, kept=item.sha256 in (before[2]["sha256"], before[4]["sha256"])) for item in items]
    tab = open_page(browser, write(tmp_path / "again", fixed, items[1:], fixes=fixed.fixes))
    assert tab.page.inner_text("#counts").startswith("2 of 7 decided: 2 kept")
    assert tab.page.inner_text("#download") == "Download fixes.csv (5)"
    tab.page.keyboard.press("k")  # the second one, which was relabelled before
    found = actions(tab.downloaded("#download")[1], tmp_path)
    relabelled = [(row["path"], row["label"]) for row in before if row["action"] == "relabel"]
    assert sorted((path, to) for path, action, to in found if action == "relabel") == sorted(relabelled)
    assert sorted(row[:2] for row in found) == sorted((row["path"], row["action"]) for row in before)
    again = load_image_set(image_set.source, fixes=tmp_path / "fixes.csv")
    assert again.labels.tolist() == fixed.labels.tolist()
    assert not tab.errors


def test_nothing_that_others_have_written_becomes_html(browser, page):
    tab = open_page(browser, page)
    assert tab.page.evaluate("document.querySelectorAll('b, i, img[src=x]').length") == 1  # the path below
    assert EVIL in tab.page.inner_text("h1")
    assert EVIL in tab.page.inner_text("#what")
    assert not tab.errors


def test_several_labels_per_image(browser, tmp_path):
    images = [
        ImageToCheck(
            f"{i}.png", f"{i}" * 64, np.full((8, 8, 1), 9 * i, np.uint8), '["a"]', '["a", "b"]', 1 - i / 9
        )
        for i in range(4)
    ]
    with new_folder(tmp_path / "page") as new:
        write_page(new, images, title="t", source="s", class_names=("a", "b", "c, d"), several=True)
    tab = open_page(browser, tmp_path / "page")
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("3")  # one more label, and one less
    tab.page.keyboard.press("1")
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("r")
    tab.page.locator("#choose-list input").nth(0).uncheck()
    tab.page.click("#choose-save")
    tab.page.keyboard.press("k")
    found = actions(tab.downloaded("#download")[1], tmp_path)
    assert found == [
        ("0.png", "relabel", '["a","b"]'),
        ("1.png", "relabel", '["c, d"]'),
        ("2.png", "relabel", "[]"),
        ("3.png", "keep", '["a"]'),
    ]
    assert not tab.errors


def test_images_without_labels_give_a_table_to_train_with(browser, tmp_path):
    paths = [tmp_path / name for name in ("a\n<b>.png", "=é.png", "c.png", "old.png")]
    for i, path in enumerate(paths):
        path.write_bytes(encoded(i))
    images = [
        ImageToCheck(path.name, content_hash(path), path, suggested="=x", score=1 - i / 9, file=path)
        for i, path in enumerate(paths[:3])
    ]
    labelled = [{"path": str(paths[3]), "label": "y", "part": part} for part in ("test",)]
    with new_folder(tmp_path / "page") as new:
        write_page(
            new, images, title="t", source="s", class_names=("=x", "y"), task="labels", labelled=labelled
        )
    tab = open_page(browser, tmp_path / "page")
    for key in ("Enter", "2", "d"):
        tab.page.keyboard.press(key)
    name, text = tab.downloaded("#download")
    assert name == "labels.jsonl"
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = load_image_set(tmp_path / name)
    assert found.class_names == ("=x", "y")
    assert [
        (path.name, label, part)
        for path, label, part in zip(found.images, found.labels, found.parts, strict=True)
    ] == [
        ("a\n<b>.png", 0, "train"),
        ("=é.png", 1, "train"),
        ("old.png", 1, "test"),
    ]
    assert not tab.errors


@pytest.mark.parametrize("width", [390, 1100])
def test_ten_thousand_images_are_few_elements(browser, page, tmp_path, width):
    """Only the cards near the screen are elements; keys and filters reach the others."""
    source = (page / "index.html").read_text(encoding="utf-8")
    data = data_of(page)
    data["images"] = [
        {
            **data["images"][0],
            "path": f"{i}.png",
            "sha256": str(i),
            "score": 0.5,
            "file": f"thumbnails/{i}.png",
        }
        for i in range(10_000)
    ]
    text = json.dumps(data).replace("<", "\\u003c")
    start, end = source.index('id="data">') + 10, source.index("</script>")
    (tmp_path / "index.html").write_text(source[:start] + text + source[end:], encoding="utf-8")
    tab = Tab(browser, width=width, height=800)
    tab.page.goto((tmp_path / "index.html").as_uri())

    def elements():
        return tab.page.evaluate("document.querySelectorAll('*').length")

    assert elements() < 700
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    tab.page.keyboard.press("End")
    assert tab.page.inner_text("#what").startswith("9999.png")
    assert tab.page.is_visible(".card[aria-current]")
    tab.page.keyboard.press("d")
    tab.page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    tab.page.wait_for_timeout(50)
    assert elements() < 700
    tab.page.select_option("#state", label="dropped")
    assert tab.page.locator(".card").count() == 1
    assert tab.page.inner_text("#counts").startswith("1 of 10000")
