"""Tables of paths and labels: what is read, what is said, and the errors with their lines."""

import json

import numpy as np
import pytest

from keras_vit.data.sources import load_image_set
from keras_vit.data.split import split_image_set
from keras_vit.errors import InputError
from tests.helpers.image_files import rows
from tests.helpers.trees import put

pytestmark = pytest.mark.same_on_every_backend

IMAGES = ("1.png", "2.png", "10.png", "sub/3.png")
EXPECTED = [("1.png", "a", None), ("10.png", "a", None), ("2.png", "b", None), ("sub/3.png", "b", None)]
LABEL_OF = {"2.png": "b", "10.png": "a", "1.png": "a", "sub/3.png": "b"}
PLAIN = "path,label\n" + "".join(f"{name},{label}\n" for name, label in LABEL_OF.items())


def table(tmp_path, content, name="labels.csv", images=IMAGES):
    put(tmp_path, *images)
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


READ = {
    "plain": ("labels.csv", PLAIN, ""),
    "UTF-8 with a mark": ("labels.csv", b"\xef\xbb\xbf" + PLAIN.encode(), ""),
    "UTF-16 with a mark": ("labels.csv", PLAIN.encode("utf-16"), ""),
    "UTF-16 without a mark": ("labels.csv", PLAIN.encode("utf-16-le"), "read as UTF-16"),
    "UTF-16, the other order": ("labels.csv", PLAIN.encode("utf-16-be"), "read as UTF-16"),
    "lines of Windows": ("labels.csv", PLAIN.replace("\n", "\r\n"), ""),
    "lines of old Macs": ("labels.csv", PLAIN.replace("\n", "\r"), ""),
    "semicolons": ("labels.csv", PLAIN.replace(",", ";"), "read with semicolons"),
    "semicolons as Excel says": ("labels.csv", "sep=;\n" + PLAIN.replace(",", ";"), ""),
    "tabs in a .csv": ("labels.csv", PLAIN.replace(",", "\t"), "read with tabs"),
    "tabs": ("labels.tsv", PLAIN.replace(",", "\t"), ""),
    "commas in a .tsv": ("labels.tsv", PLAIN, "read with commas"),
    "an upper-case suffix": ("LABELS.CSV", PLAIN, ""),
    "quotation marks": ("labels.csv", PLAIN.replace("sub/3.png", '"sub/3.png"'), ""),
    "other names": ("labels.csv", PLAIN.replace("path,label", "Filename,Class"), '"Filename" is taken'),
    "no header": ("labels.csv", PLAIN.removeprefix("path,label\n"), "no header"),
    "the label first": (
        "labels.csv",
        "label,path\n" + "".join(f"{label},{name}\n" for name, label in LABEL_OF.items()),
        "",
    ),
    "a label without a usual name": ("labels.csv", PLAIN.replace("label", "quality"), '"quality" is taken'),
    "a column more": ("labels.csv", PLAIN.replace(",", ",x,").replace("x,label", "x,label"), "not used: x"),
    "empty lines": ("labels.csv", PLAIN.replace("\n", "\n\n") + ",\n", ""),
    "a delimiter at each end": ("labels.csv", PLAIN.replace("\n", ",\n"), ""),
    "backslashes": ("labels.csv", PLAIN.replace("/", "\\"), ""),
    "blanks round the cells": ("labels.csv", PLAIN.replace(",", " , "), ""),
    "a dot before the path": ("labels.csv", PLAIN.replace("sub/", "./sub/"), ""),
    "a row twice": ("labels.csv", PLAIN + "./2.png,b\n", "1 row that repeats another left out (line 6)"),
    "capital letters": ("labels.csv", PLAIN.replace("1.png", "1.PNG"), "differs in capital letters"),
    "no suffixes": ("labels.csv", PLAIN.replace(".png", ""), "4 paths without a suffix"),
    "JSON lines": (
        "labels.jsonl",
        "\n".join(json.dumps({"path": name, "label": label}) for name, label in LABEL_OF.items()),
        "",
    ),
    "a JSON list": (
        "labels.json",
        json.dumps([{"file_name": name, "label": label} for name, label in LABEL_OF.items()]),
        '"file_name" is taken',
    ),
    "one column per class": (
        "labels.csv",
        "path,a,b\n" + "".join(f"{name},{+(k == 'a')},{+(k == 'b')}\n" for name, k in LABEL_OF.items()),
        "the columns a, b are taken for the classes",
    ),
}


@pytest.mark.parametrize(("name", "content", "note"), READ.values(), ids=READ)
def test_what_is_read(tmp_path, name, content, note):
    found = load_image_set(table(tmp_path, content, name))
    assert rows(found) == EXPECTED
    assert (note in " ".join(found.notes)) if note else found.notes == ()


def test_latin_1_is_read_and_said(tmp_path):
    found = load_image_set(table(tmp_path, PLAIN.replace(",b", ",Gr\xf6\xdfe").encode("latin-1")))
    assert found.class_names == ("Gr\xf6\xdfe", "a")
    assert found.notes == ("read as Latin-1, since it is not UTF-8 (line 2)",)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    put(tmp_path, *IMAGES)
    columns = {"path": list(LABEL_OF), "label": [10, 2, 2, 10], "weight": [1.0, 2.0, 0.5, 1.0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "labels.parquet")
    found = load_image_set(tmp_path / "labels.parquet")
    assert found.class_names == ("2", "10")
    assert found.weights.tolist() == [0.5, 2.0, 1.0, 1.0]
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="is not a Parquet file, or it is damaged"):
        load_image_set(tmp_path / "labels.parquet")


def test_numbers_are_text_in_natural_order(tmp_path):
    content = "path,label\n1.png,10\n2.png,2\n10.png,1\nsub/3.png,01\n"
    assert load_image_set(table(tmp_path, content)).class_names == ("01", "1", "2", "10")


def test_the_split_is_that_of_the_folders(tmp_path):
    names = [f"{k}/{i}.png" for k in ("x", "y") for i in range(1, 31)]
    put(tmp_path, *names)
    lines = [f"{name},{name[0]}\n" for name in sorted(names, reverse=True)]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(lines))
    folder, found = load_image_set(tmp_path), load_image_set(tmp_path / "labels.csv")
    assert (found.names, found.labels.tolist()) == (folder.names, folder.labels.tolist())
    assert found.fingerprint() == folder.fingerprint()


def test_parts_groups_and_weights(tmp_path):
    content = (
        "path,label,split,group,weight\n1.png,a,Training,p1,1\n2.png,b,train,p1,2.5\n10.png,a,VAL,p2,0\n"
        "sub/3.png,b,test,,1e-1\n"
    )
    found = load_image_set(table(tmp_path, content))
    assert rows(found) == [
        ("1.png", "a", "train"),
        ("2.png", "b", "train"),
        ("10.png", "a", "validation"),
        ("sub/3.png", "b", "test"),
    ]
    assert found.groups == ("p1", "p1", "p2", "\0sub/3.png")
    assert found.weights.tolist() == [1.0, 2.5, 0.0, 0.1]
    split = split_image_set(found)
    assert [split.train.tolist(), split.validation.tolist(), split.test.tolist()] == [[0, 1], [2], [3]]
    judging = load_image_set(tmp_path / "labels.csv", ("a", "b"))
    assert judging.parts is None
    assert any(note.startswith("all parts are read") for note in judging.notes)


def test_any_column_may_be_the_group(tmp_path):
    path = table(tmp_path, "path,label,part,strip\n1.png,a,,x\n2.png,b,,y\n10.png,b,,x\n")
    assert load_image_set(path).groups is None
    assert load_image_set(path, group_by="column:strip").groups == ("x", "y", "x")
    with pytest.raises(InputError, match="has no column 'plate'"):
        load_image_set(path, group_by="column:plate")


ONE = "path,label\n1.png,a\n2.png,b\n"
WRONG = {
    "a missing file": (ONE + "9.png,a\n", r"names 1 of 3 images that is not there \(line 4: 9.png\)"),
    "missing files": (
        ONE + "".join(f"no{i}.png,a\n" for i in range(9)),
        "lines 4, 5, 6, 7, 8 and 4 more: no0.png",
    ),
    "an empty label": (ONE + "10.png,\n", "has no label in line 4: fill it in"),
    "empty labels": (ONE + "10.png, \nsub/3.png\n", "has 2 rows without a label in lines 4, 5"),
    "an empty path": (ONE + ",a\n", "has no path in line 4"),
    "two labels": (ONE + "1.png,b\n", r'gives 1.png two labels, "a" and "b" \(lines 2, 4\)'),
    "two labels, other spelling": (ONE + "./sub/../1.png,b\n", "two labels"),
    "an unknown part": (
        "path,label,part\n1.png,a,train\n2.png,b,trian\n",
        'the unknown part "trian" in line 3',
    ),
    "a part in some rows": ("path,label,part\n1.png,a,train\n2.png,b,\n", "has no part in line 3"),
    "two parts": (
        "path,label,part\n1.png,a,train\n2.png,b,train\n1.png,a,test\n",
        'two values of part, "train" and "test"',
    ),
    "no training images": (
        "path,label,part\n1.png,a,train\n2.png,b,test\n10.png,c,train\n",
        'has no training images of the class "b", but test images, such as in line 3',
    ),
    "one class": ("path,label\n1.png,a\n2.png,a\n", "has only one class"),
    "a NUL": ("path,label\n1.png,a\n2.png\0,b\n", "has a NUL character in line 3"),
    "undecodable text": (b"path,label\n1.png,a\n2.png,\x81\n", "cannot be decoded in line 3: it is neither "
    "UTF-8"),
    "half UTF-16": (ONE.encode("utf-16") + b"\xd8", "cannot be decoded in line 4: it is not UTF-16"),
    "nothing": ("", "is empty"),
    "a header alone": ("path,label\n", "a header and no rows"),
    "one column": ("path\n1.png\n", "has no column with the label"),
    "no paths": ("size,label\n3,a\n4,b\n", "has no column with the path"),
    "a cell too many": ("path,label\n1,5.png,a\n2.png,b\n", "has 3 cells in line 2, but 2 columns"),
    "an open quotation mark": ('path,label\n1.png,a\n"2.png,b\n', "that is not closed, in the row that "
    "begins in line 3"),
    "a column twice": ("path,label,label\n1.png,a,a\n", '2 columns with the name "label"'),
    "an address": (ONE + "https://example.com/1.png,a\n", "nothing is downloaded, in line 4"),
    "a folder": (ONE + "sub,a\n", r"names a folder in place of an image \(line 4: sub\)"),
    "a device": (ONE + "/dev/null,a\n", "names a device or pipe in place of an image"),
    "outside": (ONE + "../x.png,a\n", r"leave its folder \(line 4: ../x.png\): add --allow-outside"),
    "outside by a detour": (ONE + "sub/../../x.png,a\n", "leave its folder"),
    "outside in Windows": (ONE + "..\\x.png,a\n", "leave its folder"),
    "a weight below 0": ("path,label,weight\n1.png,a,-1\n2.png,b,1\n", 'has the weight "-1" in line 2'),
    "a weight that is none": ("path,label,weight\n1.png,a,nan\n2.png,b,1\n", 'has the weight "nan" in'),
    "no weight above 0": ("path,label,weight\n1.png,a,0\n2.png,b,0\n", "has no weight above 0"),
    "several labels": ('path,label\n1.png,"[""a"",""b""]"\n2.png,b\n', 'the label "b" for all images'),
    "several classes": ("path,a,b\n1.png,1,1\n2.png,0,1\n", 'the label "b" for all images'),
    "an Excel file": (b"PK\x03\x04" + bytes(40), "is not text but a zip or an Excel file"),
    "a PNG": (b"\x89PNG\r\n\x1a\n" + bytes(40), "cannot be decoded|is not text"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "told"), WRONG.values(), ids=WRONG)
def test_wrong_tables(tmp_path, content, told):
    with pytest.raises(InputError, match=told) as error:
        load_image_set(table(tmp_path, content))
    assert str(tmp_path / "labels.csv") in str(error.value)
    assert "\n" not in str(error.value)


WRONG_JSON = {
    "no JSON": ("labels.jsonl", '{"path": "1.png", "label": "a"}\n{"path": ', "is not JSON in line 2"),
    "no object": (
        "labels.jsonl",
        '{"path": "1.png", "label": "a"}\n["2.png"]',
        "has no JSON object in line 2",
    ),
    "an object as the label": ("labels.jsonl", '{"path": "1.png", "label": {"a": 1}}', "has an object"),
    "deep": ("labels.json", "[" * 100_000, "is not JSON"),
    "another kind": ("labels.json", '{"a": 1}', "is not JSON that is read"),
    "a spreadsheet": ("labels.xlsx", "x", "is a spreadsheet: save it as CSV"),
    "other XML": ("labels.xml", "<a/>", "is not an export of"),
    "entities": ("labels.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations/>", "declares a document type"),
}


@pytest.mark.parametrize(("name", "content", "told"), WRONG_JSON.values(), ids=WRONG_JSON)
def test_wrong_files_of_other_kinds(tmp_path, name, content, told):
    with pytest.raises(InputError, match=told):
        load_image_set(table(tmp_path, content, name))


def test_paths_outside_are_taken_when_asked_for(tmp_path):
    put(tmp_path, "x.png", "y.png")
    inner = tmp_path / "inner"
    content = f"path,label\n../x.png,a\n{tmp_path}/y.png,b\n1.png,a\n"
    found = load_image_set(table(inner, content), allow_outside=True)
    assert found.names == ("1.png", "../x.png", f"{tmp_path}/y.png")
    wanted = [inner / "1.png", tmp_path / "x.png", tmp_path / "y.png"]
    assert [path.resolve() for path in found.images] == wanted
    assert found.notes == ("1 absolute path, taken as written",)


def test_the_ids_of_kaggle(tmp_path):
    content = "id,breed\n7f,boxer\n8a,pug\n"
    path = table(tmp_path, content, "train.csv", ["train/7f.jpg", "train/8a.png", "test/7f.jpg"])
    found = load_image_set(path)
    assert rows(found) == [("train/7f.jpg", "boxer", None), ("train/8a.png", "pug", None)]
    assert any("count from train/" in note for note in found.notes)
    put(tmp_path, "train/8a.jpg")
    with pytest.raises(InputError, match=r"names 8a in line 3, which may be 8a.jpg, 8a.png"):
        load_image_set(path)


def test_a_formula_is_a_text(tmp_path):
    content = "path,label\n=1+1.png,=cmd|'/c calc'!A0\n2.png,@b\n"
    found = load_image_set(table(tmp_path, content, images=["=1+1.png", "2.png"]))
    assert found.names == ("=1+1.png", "2.png")
    assert found.class_names == ("=cmd|'/c calc'!A0", "@b")


def test_a_folder_with_a_table_says_so(tmp_path):
    put(tmp_path, "1.png", "2.png", "labels.csv")
    with pytest.raises(InputError, match=r"give it instead: --data .*labels\.csv"):
        load_image_set(tmp_path)


def test_labels_of_one_class_judge_a_run(tmp_path):
    found = load_image_set(table(tmp_path, "path,label\n1.png,a\n2.png,a\n"), ("b", "a"))
    assert found.class_names == ("b", "a")
    np.testing.assert_array_equal(found.labels, [1, 1])
