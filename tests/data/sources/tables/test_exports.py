"""Exports of tools for labelling, small ones written as the tools write them."""

import csv
import io
import json

import pytest

from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from tests.helpers.image_files import rows
from tests.helpers.trees import put

pytestmark = pytest.mark.same_on_every_backend

IMAGES = ("images/1.png", "images/2.png", "images/3.png")
FOUND = [("images/1.png", "dent", None), ("images/2.png", "hole", None)]


def comma_separated(*rows):
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


STUDIO = ("annotation_id", "annotator", "choice", "created_at", "id", "image", "lead_time", "updated_at")
NAMES = {
    "1.png": "/data/upload/4/0a1b2c3d-1.png",
    "2.png": "/data/local-files/?d=images%2F2.png",
    "3.png": "s3://bucket/3.png",
}


def studio_row(number, choice):
    return (number, 1, choice, "2026-01-01", number, NAMES[f"{number}.png"], 3.5, "2026-01-01")


def task(number, *results, cancelled=False):
    return {
        "id": number,
        "data": {"image": NAMES[f"{number}.png"]},
        "annotations": [{"id": number, "was_cancelled": cancelled, "result": list(results)}],
    }


def choice(text):
    return {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [text]}}


def rectangle(text, x, y, w, h, **more):
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": [text], **more}
    size = {"original_width": 8, "original_height": 8}
    return {"from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value, **size}


COCO = {
    "images": [{"id": n, "file_name": f"{n}.png", "width": 8, "height": 8} for n in (1, 2, 3)],
    "categories": [{"id": 5, "name": "dent"}, {"id": 9, "name": "hole"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 4, 2], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 5, "bbox": [4, 4, 4, 4], "iscrowd": 0},
        {"id": 3, "image_id": 2, "category_id": 9, "bbox": [1, 1, 3, 5], "iscrowd": 0},
    ],
}
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<image id="0" name="1.png" width="8" height="8"><tag label="dent" source="manual"></tag></image>
<image id="1" name="2.png" width="8" height="8">
<box label="hole" xtl="1.0" ytl="1.0" xbr="4.0" ybr="6.0" occluded="0"></box></image>
<image id="2" name="3.png" width="8" height="8"></image></annotations>"""

EXPORTS = {
    "Label Studio, CSV": (
        "project-4.csv",
        comma_separated(STUDIO, studio_row(1, "dent"), studio_row(2, "hole"), studio_row(3, "")),
    ),
    "Label Studio, CSV with lists": (
        "project-4.csv",
        comma_separated(STUDIO, studio_row(1, '{"choices": ["dent"]}'), studio_row(2, "hole")),
    ),
    "Label Studio, JSON": (
        "project-4.json",
        json.dumps(
            [task(1, choice("dent")), task(2, choice("hole")), task(3, choice("dent"), cancelled=True)]
        ),
    ),
    "Label Studio, JSON-MIN": (
        "project-4.json",
        json.dumps(
            [
                dict(zip(STUDIO, row, strict=True))
                for row in (studio_row(1, "dent"), studio_row(2, "hole"), studio_row(3, ""))
            ]
        ),
    ),
    "COCO": ("coco.json", json.dumps(COCO)),
    "CVAT for images": ("annotations.xml", CVAT),
    "COCO beside the images": ("annotations/instances_default.json", json.dumps(COCO)),
}


@pytest.mark.parametrize(("name", "content"), EXPORTS.values(), ids=EXPORTS)
def test_exports_are_recognised(tmp_path, name, content):
    put(tmp_path, *IMAGES, name)
    (tmp_path / name).write_text(content)
    found = load_image_set(tmp_path / name)
    assert [(file.removeprefix("../"), *more) for file, *more in rows(found)] == FOUND


def test_the_list_of_cvat(tmp_path):
    put(tmp_path, *IMAGES)
    (tmp_path / "synsets.txt").write_text("dent\nhole\n")
    (tmp_path / "default.txt").write_text('1.png 0\n"2.png" 1\n')
    assert rows(load_image_set(tmp_path / "default.txt")) == FOUND
    for line, told in {"3.png 2": "the class 2 in line 3", "3.png 0 1": "2 labels in line 3"}.items():
        (tmp_path / "default.txt").write_text(f"1.png 0\n2.png 1\n{line}\n")
        with pytest.raises(InputError, match=told):
            load_image_set(tmp_path / "default.txt")


def test_the_folders_of_roboflow(tmp_path):
    put(tmp_path, *(f"{part}/{n}.jpg" for part in ("train", "valid") for n in (1, 2)), "README.txt")
    (tmp_path / "train/_classes.csv").write_text("filename, dent, hole\n1.jpg, 1, 0\n2.jpg, 0, 1\n")
    (tmp_path / "valid/_classes.csv").write_text("filename, dent, hole\n1.jpg, 0, 1\n2.jpg, 1, 0\n")
    found = load_image_set(tmp_path)
    assert rows(found) == [
        ("train/1.jpg", "dent", "train"),
        ("train/2.jpg", "hole", "train"),
        ("valid/2.jpg", "dent", "validation"),
        ("valid/1.jpg", "hole", "validation"),
    ]
    assert rows(load_image_set(tmp_path / "valid/_classes.csv")) == [
        ("2.jpg", "dent", None),
        ("1.jpg", "hole", None),
    ]
    (tmp_path / "valid/_classes.csv").write_text("filename, dent, hole\n1.jpg, 1, 1\n2.jpg, 0, 0\n")
    several = load_image_set(tmp_path)
    assert several.labels.tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]
    assert several.class_names == ("dent", "hole")


CROPS = {
    "COCO": ("coco.json", json.dumps(COCO)),
    "Label Studio": (
        "project-4.json",
        json.dumps(
            [
                task(1, rectangle("dent", 0, 0, 50, 25), rectangle("dent", 50, 50, 50, 50)),
                task(2, rectangle("hole", 12.5, 12.5, 37.5, 62.5)),
                task(3),
            ]
        ),
    ),
    "CVAT for images": (
        "annotations.xml",
        CVAT.replace('<tag label="dent" source="manual"></tag>', "")
        .replace("</image>", "", 1)
        .replace('width="8" height="8">', 'width="8" height="8">'
            '<box label="dent" xtl="0" ytl="0" xbr="4" ybr="2"></box>'
            '<box label="dent" xtl="4" ytl="4" xbr="8" ybr="8"></box></image>', 1),
    ),
    "a table with corners": (
        "labels.csv",
        "filename,width,height,class,xmin,ymin,xmax,ymax\n1.png,8,8,dent,0,0,4,2\n1.png,8,8,dent,4,4,8,8\n"
        "2.png,8,8,hole,1,1,4,6\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), CROPS.values(), ids=CROPS)
def test_boxes_are_images(tmp_path, name, content):
    put(tmp_path, *IMAGES)
    (tmp_path / name).write_text(content)
    found = load_image_set(tmp_path / name, crop_boxes=True)
    assert rows(found) == [
        ("images/1.png#1", "dent", None),
        ("images/1.png#2", "dent", None),
        ("images/2.png#1", "hole", None),
    ]
    assert [int.from_bytes(image[16:20]) for image in found.images] == [4, 4, 3]
    assert [int.from_bytes(image[20:24]) for image in found.images] == [2, 4, 5]
    assert found.groups[0] == found.groups[1] != found.groups[2]
    assert any(note.startswith("3 images cropped from 2 files") for note in found.notes)


def two_categories():
    rows = [*COCO["annotations"], {"id": 4, "image_id": 1, "category_id": 9, "bbox": [0, 0, 1, 1]}]
    return json.dumps({**COCO, "annotations": rows})


def changed(**more):
    return json.dumps({**COCO, "annotations": [{**COCO["annotations"][0], **more}, *COCO["annotations"][1:]]})


def fractions():
    rows = [{**row, "bbox": [0.1, 0.1, 0.2, 0.2]} for row in COCO["annotations"]]
    return json.dumps({**COCO, "annotations": rows})


WRONG = {
    "two categories": (two_categories(), False, r"2 labels \(dent, hole\): add --crop-boxes"),
    "an unknown image": (changed(image_id=7), False, "it does not list, in annotation 1"),
    "no category": (changed(category_id=None), True, "it does not list, in annotation 1"),
    "no box": (changed(bbox=None), True, "has a box in annotation 1 that is not x,y,w,h"),
    "an empty box": (changed(bbox=[1, 1, 0, 2]), True, "a box without an area in annotation 1"),
    "outside": (changed(bbox=[8, 0, 2, 2]), True, "a box outside its image in annotation 1"),
    "fractions": (fractions(), True, "boxes of less than one pixel"),
    "a missing entry": ('{"images": [{}], "annotations": []}', False, "is not COCO annotations"),
    "no labels": ('{"images": [{"id": 1, "file_name": "1.png"}]}', False, "no labelled images"),
}


@pytest.mark.parametrize(("content", "crop_boxes", "told"), WRONG.values(), ids=WRONG)
def test_wrong_annotations(tmp_path, content, crop_boxes, told):
    put(tmp_path, *IMAGES)
    (tmp_path / "coco.json").write_text(content)
    with pytest.raises(InputError, match=told):
        load_image_set(tmp_path / "coco.json", crop_boxes=crop_boxes)


STRANGE = {
    "images that are numbers": ("a.json", '{"images": [1]}', "is not COCO annotations"),
    "names that are lists": ("a.json", '{"images": [{"id": [1], "file_name": "1.png"}]}', "is not COCO"),
    "tasks without lists": ("a.json", '[{"data": {"image": 5}, "annotations": 5}]', "without images"),
    "a choice that is a number": (
        "a.json",
        '[{"data": {"image": "1.png"}, "annotations": [{"result": [{"value": {"choices": 5}}]}]}]',
        "has no labelled images",
    ),
    "a box that is text": (
        "a.xml",
        '<annotations><image id="1" name="1.png"><box label="a" xtl="x"/></image></annotations>',
        "has a box in image 1 that is not x,y,w,h",
    ),
    "a list without boxes": ("a.txt", "1.png a\n2.png b\n", "has no boxes to crop"),
}


@pytest.mark.parametrize(("name", "content", "told"), STRANGE.values(), ids=STRANGE)
def test_strange_files(tmp_path, name, content, told):
    put(tmp_path, *IMAGES)
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=told):
        load_image_set(tmp_path / name, crop_boxes=name != "a.json")
