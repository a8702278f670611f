import json

import numpy as np
import pytest
from PIL import Image

from keras_vit.data.sources import load_image_set
from keras_vit.data.sources.tables.several import guess_separator
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend

NAMES = [f"{i}.png" for i in range(6)]
LABELS = {
    "0.png": ["a"],
    "1.png": ["b"],
    "2.png": ["a", "b"],
    "3.png": [],
    "4.png": ["b", "c"],
    "5.png": ["c"],
}
WANTED = [[name in labels for name in "abc"] for labels in LABELS.values()]


def in_cells(join):
    return "path,label\n" + "".join(f'{name},"{join(labels)}"\n' for name, labels in LABELS.items())


def with_separator(separator):
    return in_cells(lambda labels: separator.join(labels) or "[]")


TABLES = {
    "bars": (with_separator("|"), {"several_labels": True}),
    "semicolons": (with_separator("; "), {"several_labels": True}),
    "commas": (with_separator(", "), {"several_labels": True}),
    "JSON lists": (in_cells(lambda labels: json.dumps(labels).replace('"', '""')), {}),
    "a named column": (with_separator("|").replace("label", "findings"), {"label_columns": ["findings"]}),
    "columns of 0 and 1": (
        "path,a,b,c\n"
        + "".join(f"{n},{','.join(str(int(x in found)) for x in 'abc')}\n" for n, found in LABELS.items()),
        {},
    ),
    "columns of yes and no": (
        "path,a,b,c\n"
        + "".join(f"{n},{','.join(['No', 'yes'][x in has] for x in 'abc')}\n" for n, has in LABELS.items()),
        {"label_columns": ["a", "b", "c"]},
    ),
    "a row per label": (
        "path,label\n" + "".join(f"{n},{x}\n" for n, found in LABELS.items() for x in found or ["[]"]),
        {"several_labels": True},
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(NAMES):
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(("content", "options"), TABLES.values(), ids=TABLES)
def test_several_labels(folder, content, options):
    (folder / "t.csv").write_text(content)
    found = load_image_set(folder / "t.csv", **options)
    assert found.several
    assert found.class_names == ("a", "b", "c")
    assert found.names == tuple(NAMES)
    np.testing.assert_array_equal(found.labels, WANTED)


def flags(column):
    return "path,a,b\n" + "".join(
        f"{n},{value},{i % 2}\n" for i, (n, value) in enumerate(zip(NAMES, column, strict=False))
    )


SEVERAL = {"several_labels": True}
WRONG = {
    "0, 1 and 2": (flags("012012"), {"label_columns": ["a", "b"]}, 'has "2" in the column "a" in line 4'),
    "nothing": (flags(["", *"10101"]), {"label_columns": ["a", "b"]}, 'nothing in the column "a" in line 2'),
    "NaN": (flags(["NaN", *"10101"]), {"label_columns": ["a", "b"]}, 'has "NaN" in the column "a"'),
    "no image has it": (flags("000000"), {}, "no image with the label a: remove the column"),
    "all have it": (flags("111111"), {}, 'the label "a" for all images'),
    "one label": (flags("101010"), {"label_columns": ["a"]}, "a plain column of two classes"),
    "an unknown column": (flags("101010"), {"label_columns": ["a", "z"]}, 'no column "z" for --label'),
    "a column twice": (flags("101010"), {"label_columns": ["a", "a"]}, 'the column "a" twice'),
    "one name": (in_cells(lambda labels: "a" if labels else "[]"), SEVERAL, 'has one label "a"'),
    "an empty cell": (in_cells("|".join), SEVERAL, r"no label in line 5: fill it in, write \[\]"),
    "a broken list": (in_cells(lambda _: '[""a""'), SEVERAL, "not a JSON list of labels in line 2"),
    "only in the test": (
        "path,label,part\n0.png,a,train\n1.png,b,train\n2.png,a|c,test\n",
        SEVERAL,
        'no training images with the label "c", but 1 other',
    ),
    "two parts": ("path,label,part\n0.png,a,train\n0.png,b,test\n1.png,b,train\n", SEVERAL, "two values of"),
    "ordered": (with_separator("|"), {**SEVERAL, "ordered": ["a", "b", "c"]}, "which have no order"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "options", "told"), WRONG.values(), ids=WRONG)
def test_wrong_labels(folder, content, options, told):
    (folder / "t.csv").write_text(content)
    with pytest.raises(InputError, match=told):
        load_image_set(folder / "t.csv", **options)


def test_what_is_said_of_the_cells(folder):
    (folder / "t.csv").write_text("path,label\n0.png,a|a\n1.png,a||b\n2.png,b\n3.png,[]\n")
    found = load_image_set(folder / "t.csv", several_labels=True)
    assert found.labels.tolist() == [[1, 0], [1, 1], [0, 1], [0, 0]]
    assert 'separated by "|"' in found.notes[0]
    assert "2 rows with a label twice or an empty one" in found.notes[1]
    assert "lines 2, 3" in found.notes[1]


def test_class_folders_have_one_class(folder):
    for name in "ab":
        (folder / name).mkdir()
        (folder / f"{name}.png").write_bytes((folder / "0.png").read_bytes())
        (folder / f"{name}.png").rename(folder / name / "1.png")
    for name in NAMES:
        (folder / name).unlink()
    with pytest.raises(InputError, match="has one class per image: omit --several-labels"):
        load_image_set(folder, several_labels=True)


GUESSES = {
    "labels that are combined": (["a|b", "a", "b|c", "c"], "|"),
    "names with a comma": (["Boston, MA", "Worcester, MA", "Salem, MA"], None),
    "two names with a bar": (["a|b", "c|d"], None),
    "plain names": (["a", "b"], None),
    "commas": (["a,b", "b,a", "a", "b"], ","),
}


@pytest.mark.parametrize(("cells", "separator"), GUESSES.values(), ids=GUESSES)
def test_what_separates_labels(cells, separator):
    assert guess_separator(cells) == separator
