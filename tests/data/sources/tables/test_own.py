"""A run is repeatable from its `images.csv`: the same images, labels, parts and order."""

import json
import shutil

import pytest

from keras_vit.data.origin import content_hash
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import split_image_set
from keras_vit.errors import InputError
from keras_vit.files import read_csv, write_csv
from keras_vit.runs.images import record_images
from tests.helpers.image_files import encoded

pytestmark = pytest.mark.same_on_every_backend

LABELS = {"=cmd": 8, "-1": 7, "10": 6, "2": 6}


def make(tmp_path):
    """A folder like that of a run, on images whose names and labels a spreadsheet takes for formulas."""
    data = tmp_path / "data"
    for k, (label, number) in enumerate(LABELS.items()):
        (data / label).mkdir(parents=True)
        for i in range(number):
            (data / label / f"+{i}.png").write_bytes(encoded(seed=100 * k + i))
    image_set = load_image_set(data)
    split = split_image_set(image_set, seed=3)
    run = tmp_path / "run"
    run.mkdir()
    record = record_images(image_set, split)
    record.write(run)
    config = {
        "train": {"data": str(data)},
        "data": {"root": str(data), "root_from_run": "../data", "class_names": list(image_set.class_names)},
    }
    (run / "config.json").write_text(json.dumps(config))
    return run / "images.csv", record


def test_a_run_is_repeatable(tmp_path):
    table, record = make(tmp_path)
    assert "\n'=cmd/+0.png," in table.read_text()  # no formula for a spreadsheet
    found = load_image_set(table)
    again = record_images(found, split_image_set(found, seed=99))
    assert again.class_names == record.class_names
    assert list(again.rows) == list(record.rows)
    judging = load_image_set(table, record.class_names)
    assert judging.parts is None
    assert len(judging) == sum(LABELS.values())


def test_a_search_has_such_a_table_too(tmp_path):
    table, record = make(tmp_path)
    config = json.loads((table.parent / "config.json").read_text())
    (table.parent / "config.json").unlink()
    (table.parent / "search.json").write_text(json.dumps({"asked": config["train"], "data": config["data"]}))
    assert load_image_set(table).names == tuple(row["path"] for row in record.rows)


def test_images_that_moved_are_found_by_their_content(tmp_path):
    table, record = make(tmp_path)
    shutil.move(tmp_path / "data", tmp_path / "moved")
    with pytest.raises(InputError, match="which is gone"):
        load_image_set(table)
    (tmp_path / "new").mkdir()
    shutil.move(tmp_path / "moved", tmp_path / "data")
    (tmp_path / "data/2/+0.png").rename(tmp_path / "data/2/renamed.png")
    found = load_image_set(table)
    assert [content_hash(image) for image in found.images] == [row["sha256"] for row in record.rows]
    (tmp_path / "data/2/renamed.png").write_bytes(encoded(seed=7777))
    with pytest.raises(InputError, match=r"names 1 image that is gone or changed in .* \(2/\+0.png\)"):
        load_image_set(table)


def test_a_label_and_a_part_that_were_corrected_count(tmp_path):
    table, _ = make(tmp_path)
    rows = read_csv(table)
    rows[0] |= {"label": "2", "part": "test"}
    write_csv(table, rows)
    found = load_image_set(table)
    i = found.names.index(rows[0]["path"])
    assert (found.class_names[found.labels[i]], found.parts[i]) == ("2", "test")


def test_what_is_said(tmp_path):
    table, _ = make(tmp_path)
    rows = [row for row in read_csv(table) if row["part"] != "validation"]
    rows[0]["part"] = "unreadable"
    write_csv(table, rows)
    notes = load_image_set(table).notes
    assert notes == (
        f"the images are those of {tmp_path}/data",
        "1 image of the part unreadable, not used",
        "the run had no validation part, so one is drawn of its training images, unless "
        "--validation-fraction is 0",
    )


DAMAGED = {
    "a part": (lambda text: text.replace(",train", ",x", 1), "in line 2, its part is not one of"),
    "a column": (lambda text: text.replace("sha256", "sha", 1), "does not have the columns"),
    "a label": (lambda text: text.replace(",'=cmd,", ",,", 1), "in line .*, it has no path or no label"),
    "no rows": (lambda text: "", "does not have the columns"),
}


@pytest.mark.parametrize(("change", "told"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_table(tmp_path, change, told):
    table, _ = make(tmp_path)
    table.write_text(change(table.read_text()))
    with pytest.raises(InputError, match=told):
        load_image_set(table)
