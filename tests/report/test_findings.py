"""What the audit found: in a box at the top of the page, and in words at its end."""

import pytest

from keras_vit.report.findings import NAMES, rows, warnings
from keras_vit.text import shown
from tests.report.test_run import page_of

pytestmark = pytest.mark.same_on_every_backend


def pair(first, first_part, second, second_part, exact=True):
    parts = {"first_part": first_part, "second_part": second_part}
    return {"first": first, "second": second, "likeness": 1.0 if exact else 0.97, "exact": exact, **parts}


LEAKS = [
    pair("a/1.png", "train", "a/2.png", "test"),
    pair("a/1.png", "train", "b/3.png", "test", exact=False),
    pair("b/3.png", "test", "b/4.png", "validation"),
    pair("a/5.png", "validation", "a/1.png", "train"),
]
WRONG = {
    "leaks": (
        {"leaks": LEAKS},
        [
            "2 of the 120 test images have an equal or nearly equal image in another part, such as "
            "a/1.png (train) = a/2.png (test). The test accuracy may be too high: remove the copies, and",
            "1 validation image has an equal or nearly equal image among the training images, such as "
            "a/5.png (validation) = a/1.png (train). The epoch and the temperature that they chose may be",
        ],
    ),
    "one leak": ({"leaks": LEAKS[:1]}, ["1 of the 120 test images has an equal or nearly equal image"]),
    "conflicts": (
        {"label_conflicts": [["a/1.png", "b/1.png"], ["a/2.png", "b/2.png"]]},
        ["2 groups of equal images are in more than one class, such as a/1.png = b/1.png. At most one"],
    ),
    "one conflict": (
        {"label_conflicts": [["a/1.png", "b/1.png"]]},
        ["1 group of equal images is in more than one class"],
    ),
    "unreadable": (
        {"unreadable": [{"name": "a/1.png", "reason": "empty, 0 bytes"}]},
        ["1 image cannot be read and was left out, such as a/1.png: empty, 0 bytes."],
    ),
    "damaged": (
        {"damaged": [{"name": f"a/{i}.jpg", "reason": "Premature end of JPEG file"} for i in range(2)]},
        ["2 damaged images can be read, such as a/0.jpg: Premature end of JPEG file. A part of the picture"],
    ),
    "not searched": (
        {"near_duplicates_skipped": "not searched for: more than 20,000 images take too long"},
        ["Nearly equal images were not searched for: more than 20,000 images take too long. It is not known"],
    ),
    "duplicates in one part": ({"exact_duplicates": [["a/1.png", "a/2.png"]], "leaks": []}, []),
    "nothing": ({}, []),
    "no audit": (None, []),
}


@pytest.mark.parametrize(("audit", "sentences"), WRONG.values(), ids=WRONG.keys())
def test_what_may_make_the_figures_wrong_is_a_sentence(audit, sentences):
    found = warnings(audit, 120)
    assert len(found) == len(sentences)
    for line, beginning in zip(found, sentences, strict=True):
        assert line.startswith(beginning)
        assert line.endswith(".")


def test_the_box_comes_before_the_figures():
    page = page_of(lambda given: given["audit"].update(leaks=LEAKS, label_conflicts=[["<b>", "b\u202e"]]))
    text = page.text
    where = [text.index(part) for part in ("Check the images", "2 of the 120 test images", "best epoch by")]
    assert where == sorted(where)
    assert "<b> = b\\u202e" in text
    assert "warning" in {box["class"] for box in page.all("aside")}
    assert "Check the images" not in page_of().text


def test_no_key_of_the_audit_is_shown_as_such():
    keys = {key: [] for key in NAMES}
    assert not [name for name, _ in rows(keys) if "_" in name]
    text = page_of(lambda given: given.update(audit=keys)).text
    assert "equal images in more than one class" in text
    assert [name for name, _ in rows({"a_new_one": 1})] == ["a new one"]


def test_how_the_images_were_read_is_shown_in_sentences():
    notes = ["3 files are skipped: .txt (3).", "Two folders, a and b."]
    assert dict(rows({"notes": notes})) == {"how the images were read": notes}
    assert not rows({"notes": []})
    assert notes[0] in page_of(lambda given: given["audit"].update(notes=notes)).text


def test_hidden_characters_are_shown_in_every_part_of_the_page():
    evil = "\x1b[31m\u202e\u200b\u2066"

    def changes(given):
        given["config"]["data"]["source"] += evil
        given["config"]["command"] += evil + "\n"
        given["audit"]["exact_duplicates"][0][0] += evil
        given["metrics"]["class_names"][0] += evil
        for row in given["metrics"]["best"]["per_class"] + given["metrics"]["mistakes"]:
            row["name"] += evil

    page = page_of(changes)
    assert not set(evil) & set(page.source) - set("[31m")
    assert page.text.count(shown(evil)) > 10
    assert "--seed 1234\\x1b[31m\\u202e\\u200b\\u2066\\n" in page.text
