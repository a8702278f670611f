"""`--fixes`: what a person decided on images."""

import csv
import json

import numpy as np
import pytest

import keras_vit
from keras_vit.data.origin import content_hash
from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from keras_vit.files import read_csv, write_csv
from tests.helpers.image_files import encoded

pytestmark = pytest.mark.same_on_every_backend

COLUMNS = ("path", "sha256", "action", "label")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for number, name in enumerate(
        ("cat/1.png", "cat/2.png", "cat/3, b.png", "dog/1.png", "dog/2.png", "-=é/1.png")
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(number))
    return folder


@pytest.fixture
def write(images, tmp_path):
    """Writes the fixes of images by their names, (name, action, label); the file."""

    def fixes(*rows, file="fixes.csv"):
        table = [
            dict(zip(COLUMNS, (name, content_hash(images / name), action, label), strict=True))
            for name, action, label in rows
        ]
        write_csv(tmp_path / file, table, COLUMNS)
        return tmp_path / file

    return fixes


def labels_of(image_set):
    return {
        name: image_set.class_names[label]
        for name, label in zip(image_set.names, image_set.labels, strict=True)
    }


def test_images_are_dropped_and_relabelled(images, write, caplog):
    fixes = write(("cat/1.png", "keep", "cat"), ("cat/3, b.png", "relabel", "-=é"), ("dog/2.png", "drop", ""))
    before = {path: path.read_bytes() for path in images.rglob("*.png")}
    found = load_image_set(images, fixes=fixes)
    assert labels_of(found) == {
        "-=é/1.png": "-=é",
        "cat/1.png": "cat",
        "cat/2.png": "cat",
        "cat/3, b.png": "-=é",
        "dog/1.png": "dog",
    }
    assert f"{fixes}: 3 images looked at, 1 kept, 1 relabelled, 1 dropped." in caplog.text
    assert [dict(row) for row in found.fixes] == read_csv(fixes)
    assert {path: path.read_bytes() for path in images.rglob("*.png")} == before
    # The rows that a run records give the same again, when the file is gone and images have other names.
    (images / "cat" / "3, b.png").rename(images / "cat" / "9.png")
    again = load_image_set(images, fixes=json.loads(json.dumps([dict(row) for row in found.fixes])))
    assert labels_of(again)["cat/9.png"] == "-=é"
    assert "dog/2.png" not in again.names


def test_a_class_without_images_is_left_out(images, write, caplog):
    fixes = write(("-=é/1.png", "relabel", "dog"))
    found = load_image_set(images, fixes=fixes)
    assert found.class_names == ("cat", "dog")
    assert labels_of(found)["-=é/1.png"] == "dog"
    assert "no image of -=é is left, so it is no class any more." in caplog.text
    # Images that judge a run keep its classes, and may be relabelled as any of them.
    judged = load_image_set(
        images, ("-=é", "cat", "dog", "eel"), fixes=write(("cat/1.png", "relabel", "eel"))
    )
    assert labels_of(judged)["cat/1.png"] == "eel"
    assert judged.class_names[:4] == ("-=é", "cat", "dog", "eel")


GOOD = "cat/1.png,{sha},keep,cat"

REFUSED = {
    "": "is empty",
    "path,sha256,action,label\n": "has a header and no rows",
    "path,action,label\ncat/1.png,keep,cat": "must have the columns path, sha256, action, label",
    "path,sha256,action,label,why\ncat/1.png,{sha},keep,cat,": "must have the columns",
    GOOD.replace(
        "keep", "kep"
    ): "has the action 'kep' in line 2, and an action is keep, relabel or drop: did you mean",
    GOOD.replace("keep", "Relabel"): "the action 'Relabel' in line 2",
    GOOD.replace("keep,cat", "relabel,"): "relabels cat/1.png without a label in line 2",
    GOOD.replace(
        "keep,cat", "relabel,kat"
    ): "label 'kat' in line 2, which is not a class of these images: did you mean 'c",
    GOOD.replace(
        "keep,cat", "keep,dog"
    ): "keeps the label 'dog' of cat/1.png in line 2, and its label is 'cat'",
    GOOD.replace("1.png", "9.png"): "names 1 image that is not in .* (line 2: cat/9.png)",
    GOOD.replace(
        "{sha}", "0" * 64
    ): "1 image of .* has changed since a person looked at it (line 2: cat/1.png",
    GOOD.replace("{sha}", ""): "has changed since a person looked at it (line 2: cat/1.png",
    GOOD + "\n" + GOOD.replace("keep", "drop"): "has cat/1.png in lines 2, 3: leave one",
    GOOD.replace("cat/1.png", ""): "has no path in line 2",
    GOOD + ",more": "has 5 cells in line 2, but 4 columns",
    '"' + GOOD: "a quotation mark that is not closed",
}


@pytest.mark.parametrize("text", REFUSED)
def test_other_files_are_refused_in_one_sentence(images, tmp_path, text):
    lines = text if text.startswith("path,") or not text else "path,sha256,action,label\n" + text
    (tmp_path / "f.csv").write_text(lines.format(sha=content_hash(images / "cat" / "1.png")))
    with pytest.raises(InputError) as error:
        load_image_set(images, fixes=tmp_path / "f.csv")
    first, *rest = REFUSED[text].split(".*")
    assert first in str(error.value)
    assert all(part in str(error.value) for part in rest)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["none.csv", "images", "\0"])
def test_a_file_that_is_none(images, tmp_path, name):
    with pytest.raises(InputError, match=r"cannot be read|folder|null"):
        load_image_set(images, fixes=tmp_path / name)


def test_spreadsheets_may_write_it_again(images, write):
    fixes = write(("cat/3, b.png", "relabel", "-=é"), ("-=é/1.png", "drop", ""))
    rows = list(csv.reader(fixes.read_text(encoding="utf-8").splitlines()))
    with fixes.open("w", encoding="utf-16", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    assert labels_of(load_image_set(images, fixes=fixes))["cat/3, b.png"] == "-=é"


def test_all_images_cannot_be_dropped(images, write):
    names = [path.relative_to(images).as_posix() for path in sorted(images.rglob("*.png"))]
    with pytest.raises(InputError, match="drops all images"):
        load_image_set(images, fixes=write(*((name, "drop", "") for name in names)))


def test_several_labels(tmp_path):
    rows = [("a.png", ["x", "y"]), ("b.png", []), ("c.png", ["y"]), ("d.png", ["x"])]
    for number, (name, _) in enumerate(rows):
        (tmp_path / name).write_bytes(encoded(number))
    table = [json.dumps({"path": name, "label": labels}) for name, labels in rows]
    (tmp_path / "t.jsonl").write_text("\n".join(table))
    fixes = [
        {"path": name, "sha256": content_hash(tmp_path / name), "action": action, "label": label}
        for name, action, label in (
            ("a.png", "relabel", '["y"]'),
            ("b.png", "keep", "[]"),
            ("d.png", "drop", ""),
        )
    ]
    write_csv(tmp_path / "f.csv", fixes)
    found = load_image_set(tmp_path / "t.jsonl", several_labels=True, fixes=tmp_path / "f.csv")
    named = dict(zip(found.names, found.labels.tolist(), strict=True))
    assert found.class_names == ("y",)  # no image has x any more
    assert named == {"a.png": [1], "b.png": [0], "c.png": [1]}
    write_csv(tmp_path / "f.csv", [{**fixes[0], "label": "y"}])
    with pytest.raises(InputError, match=r"line 2 a label of which 'y' is not a JSON list of labels"):
        load_image_set(tmp_path / "t.jsonl", several_labels=True, fixes=tmp_path / "f.csv")


def test_load_data_takes_them(drawn_images, tmp_path):
    whole = load_image_set(drawn_images)
    name = whole.names[0]
    row = {"path": name, "sha256": content_hash(whole.images[0]), "action": "drop", "label": ""}
    write_csv(tmp_path / "f.csv", [row])
    data = keras_vit.load_data(str(drawn_images), (16, 16, 1), fixes=str(tmp_path / "f.csv"))
    assert len(data.image_set) == len(whole) - 1
    assert name not in data.image_set.names
    with pytest.raises(InputError, match="An ImageSet has its labels already"):
        keras_vit.load_data(whole, (16, 16, 1), fixes=str(tmp_path / "f.csv"))


def test_arrays_have_fixes_too(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.array([0, 0, 0, 1, 1, 1]))
    whole = load_image_set(tmp_path / "a.npz")
    row = {"path": whole.names[1], "sha256": content_hash(whole.images[1]), "action": "relabel", "label": "1"}
    write_csv(tmp_path / "f.csv", [row])
    assert load_image_set(tmp_path / "a.npz", fixes=tmp_path / "f.csv").labels.tolist() == [0, 1, 0, 1, 1, 1]
