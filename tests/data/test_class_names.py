"""Names of classes: one line of printable text, in NFC, in natural order."""

import pytest

from keras_vit.data.class_names import class_name, in_order, natural_key, notes_on, same_names
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("scratches", "scratches"),
        ("rolled-in scale", "rolled-in scale"),
        ("Gro\u0308\xdfe", "Gr\xf6\xdfe"),
        ("\uac01", "\uac01"),
        ("\u1100\u1161\u11a8", "\uac01"),
        (" a ", "a"),
        ("\u3000a\xa0", "a"),
        ("a\nb", "a\\nb"),
        ("a\r", "a"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\u2028b", "a\\u2028b"),
        ("a\x85b", "a\\x85b"),
        ("a\u202eb", "a\\u202eb"),
        ("caf\udce9", "caf\\xe9"),
    ],
)
def test_a_name_is_one_line_of_printable_text(text, name):
    found = class_name(text, "x")
    assert found == name
    assert found.splitlines() == [found]
    assert class_name(found, "x") == found
    found.encode("utf-8")


@pytest.mark.parametrize("text", ["", " ", "\n", "\t \u3000"])
def test_a_name_of_nothing_is_refused(text):
    with pytest.raises(InputError, match=r"^a label gives a class without a name: give it a name"):
        class_name(text, "a label")


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["10", "9", "1", "2", "11"], ("1", "2", "9", "10", "11")),
        (["a10", "a2", "a1b3", "a1b20", "b", "a"], ("a", "a1b3", "a1b20", "a2", "a10", "b")),
        (["class_2", "class_10", "class_1"], ("class_1", "class_2", "class_10")),
        (["2", "02", "002"], ("002", "02", "2")),
        (["b", "a", "b"], ("a", "b")),
        (["9" * 5000, "1" * 6000], ("9" * 5000, "1" * 6000)),
        (["\u0662", "1"], ("1", "\u0662")),
    ],
)
def test_natural_order(names, ordered):
    assert in_order(names) == ordered
    assert in_order(reversed(names)) == ordered


def test_the_order_of_plain_names_is_that_of_earlier_versions():
    names = ["crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches", "Zebra"]
    assert sorted(names, key=natural_key) == sorted(names)


def test_a_run_of_an_earlier_version_knows_its_own_spelling():
    known = ("Gro\u0308\xdfe", "a\nb", "c ")
    assert same_names(["Gr\xf6\xdfe", "a\\nb", "c", "d"], known) == {
        "Gr\xf6\xdfe": "Gro\u0308\xdfe",
        "a\\nb": "a\nb",
        "c": "c ",
    }
    assert same_names(["c", "c "], ("c", "c ")) == {"c": "c", "c ": "c "}


def test_notes_name_what_was_merged_changed_or_alike():
    notes = notes_on(
        {"e\u0301": "\xe9", "\xe9": "\xe9", "a\nb": "a\\nb", "Cat": "Cat", "cat": "cat", " d": "d"}
    )
    assert notes == [
        "'e\\u0301' and '\\xe9' are the same name, written in several ways: read as one class \"\xe9\"",
        'a class has a name that is not one line of printable text: it is called "a\\nb"',
        '"Cat" and "cat" differ only in capital letters: read as 2 classes',
    ]
