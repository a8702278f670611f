"""What tools for labelling export: Label Studio, COCO, CVAT."""

import json
import shlex
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from keras_vit.data.sources.tables.columns import box_of, one_label
from keras_vit.data.sources.tables.entries import Entry, Found, TableOptions, in_words, some
from keras_vit.data.sources.tables.paths import server_paths
from keras_vit.data.sources.tables.records import Records, is_image_name, parsed, records_of, text_of
from keras_vit.data.sources.tables.several import labels_in_list
from keras_vit.data.sources.tables.text import read_text
from keras_vit.errors import InputError

CROP = "add --crop-boxes to make each box an image, or --several-labels if an image may have several"

LABEL_STUDIO = frozenset({"annotation_id", "lead_time"})
"""Columns that only Label Studio writes."""
LABEL_STUDIO_OWN = LABEL_STUDIO | {
    "id", "annotator", "created_at", "updated_at", "agreement", "annotation", "predictions", "comment",
}  # fmt: skip

SYNSETS = "synsets.txt"


def is_label_studio(records: Records) -> bool:
    """Whether a table or JSON-MIN comes from Label Studio."""
    return set(records.columns) >= LABEL_STUDIO


def label_studio(file: Path, records: Records, options: TableOptions) -> Found:
    """The entries of an export of Label Studio as CSV, TSV or JSON-MIN.

    Raises:
        InputError: it has no column with images, or the labels cannot be told.
    """
    columns = [name for name in records.columns if name not in LABEL_STUDIO_OWN]
    images = [name for name in columns if _holds_images(records, name)]
    if not images:
        raise InputError(f"{file} is an export of Label Studio without images. It has: {some(columns)}.")
    image = images[0]
    others = [name for name in columns if name != image]
    boxes = [name for name in others if _holds_boxes(records, name)]
    if options.crop_boxes and not boxes:
        raise InputError(f"{file} is an export of Label Studio without boxes: omit --crop-boxes.")
    place = {name: i for i, name in enumerate(records.columns)}
    notes = [*records.notes, f'an export of Label Studio: the images are in "{image}"']
    found = Found(file, notes=notes, unlabeled_are_left_out=True)
    if options.crop_boxes:
        for where, row in records.rows:
            path, more = server_paths(text_of(row[place[image]]))
            results = _list_of(row[place[boxes[0]]])
            for value in results:
                found.entries.append(_crop_of(file, where, path, more, value))
            if not results:
                found.entries.append(Entry(where, path, others=more))
        return found
    usual = ["choice", "label", "class", "category"]
    named = [name for name in usual if name in others and name not in boxes]
    plain = named or [name for name in others if name not in boxes and _holds_text(records, name)]
    if not plain:
        what = CROP if boxes else "export it with a choice per image"
        raise InputError(f"{file} is an export of Label Studio without a choice per image: {what}.")
    if len(plain) > 1 and not named:
        raise InputError(
            f"{file} has several columns that may be the label ({some(plain)}): rename one of them to label."
        )
    label = plain[0]
    found.several = options.several_labels
    for where, row in records.rows:
        path, more = server_paths(text_of(row[place[image]]))
        value = row[place[label]]
        if found.several:
            text = text_of(value)
            labels = labels_in_list(value) or ([text] if text else [])
            found.entries.append(Entry(where, path, others=more, labels=tuple(labels)))
        else:
            found.entries.append(Entry(where, path, one_label(file, where, value), others=more))
    notes[-1] += f', the labels in "{label}"'
    return found


def _holds_images(records: Records, name: str) -> bool:
    place = records.columns.index(name)
    texts = [text_of(row[place]) for _, row in records.rows[:100]]
    return any(text.startswith("/data/") or is_image_name(text.partition("?")[0]) for text in texts)


def _holds_boxes(records: Records, name: str) -> bool:
    place = records.columns.index(name)
    return any(
        isinstance(value, Mapping) and "x" in value and "width" in value
        for _, row in records.rows[:100]
        for value in _list_of(row[place])
    )


def _holds_text(records: Records, name: str) -> bool:
    place = records.columns.index(name)
    return any(text_of(row[place]) for _, row in records.rows[:100])


def _list_of(value: Any) -> list:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    return value if isinstance(value, list) else []


def _crop_of(file: Path, where: str, path: str, more: tuple[str, ...], value: Any) -> Entry:
    """A box of Label Studio, whose numbers are per cent of the image."""
    try:
        width, height = float(value["original_width"]) / 100, float(value["original_height"]) / 100
        sides = [value["x"] * width, value["y"] * height, value["width"] * width, value["height"] * height]
    except (TypeError, KeyError, ValueError):
        raise InputError(f"{file} has something that is not a box in {where}: {CROP_ONLY}.") from None
    if value.get("rotation"):
        raise InputError(f"{file} has a box that is rotated in {where}: only upright boxes can be cropped.")
    labels = value.get("rectanglelabels", value.get("labels"))
    return Entry(where, path, one_label(file, where, labels), box=box_of(file, where, sides), others=more)


CROP_ONLY = "only rectangles can be cropped"


def read_json(file: Path, options: TableOptions) -> Found | Records:
    """What a JSON file holds: entries of COCO or of Label Studio, or rows.

    Raises:
        InputError: it is nothing of these.
    """
    notes: list[str] = []
    content = parsed(file, read_text(file, notes))
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        return _coco(file, content, options, notes)
    if isinstance(content, list) and content:
        rows = [(f"entry {i + 1}", row) for i, row in enumerate(content)]
        if all(isinstance(row, dict) and isinstance(row.get("data"), dict) for _, row in rows):
            return _tasks(file, rows, options, notes)
        return records_of(file, rows, notes)
    raise InputError(
        f"{file} is not JSON that is read: COCO annotations, an export of Label Studio, or a list of "
        "objects with "
        "path and label."
    )


def _tasks(file, rows, options, notes):
    """The tasks of Label Studio's JSON, in the form of its JSON-MIN."""
    flat = []
    for where, task in rows:
        done = _list_of(task.get("annotations", task.get("completions")))
        done = [one for one in done if isinstance(one, dict) and not one.get("was_cancelled")]
        base = {**task["data"], "annotation_id": None, "lead_time": None}
        for one in done or [{}]:
            row = dict(base)
            for result in _list_of(one.get("result")):
                value = result.get("value") if isinstance(result, dict) else None
                if not isinstance(value, dict):
                    continue
                name = str(result.get("from_name", result.get("type", "label")))
                if "choices" in value:
                    row[name] = _list_of(row.get(name)) + _list_of(value["choices"])
                elif "x" in value and "width" in value:
                    size = {key: result.get(key) for key in ("original_width", "original_height")}
                    row[name] = [*_list_of(row.get(name)), {**value, **size}]
            flat.append((where, row))
    return label_studio(file, records_of(file, flat, notes), options)


def _coco(file: Path, content: Mapping[str, Any], options: TableOptions, notes: list[str]) -> Found:
    found = Found(file, notes=[*notes, "COCO annotations"], unlabeled_are_left_out=True)
    found.several = options.several_labels and not options.crop_boxes
    try:
        names = {row["id"]: str(row["name"]) for row in content.get("categories") or []}
        files = {row["id"]: str(row["file_name"]) for row in content["images"]}
        boxes = [
            (row["id"], row["image_id"], row["category_id"], row) for row in content.get("annotations") or []
        ]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{file} is not COCO annotations, an entry is missing or of another type ({error}): "
            "export it again."
        ) from error
    for number, image, category, _ in boxes:
        if image not in files or category not in names:
            raise InputError(
                f"{file} has an image or a category that it does not list, in annotation {number}: export "
                "it again."
            )
    crowds = [row for row in boxes if row[3].get("iscrowd")]
    if options.crop_boxes and crowds:
        boxes = [row for row in boxes if not row[3].get("iscrowd")]
        found.notes.append(f"{in_words(len(crowds), 'box')} of crowds not used")
    of_image = defaultdict(list)
    for number, image, category, row in boxes:
        of_image[image].append((number, category, row))
    for image, name in files.items():
        rows = of_image[image]
        if options.crop_boxes:
            for number, category, row in rows:
                where = f"annotation {number}"
                found.entries.append(
                    Entry(where, name, names[category], box=box_of(file, where, row.get("bbox")))
                )
            if rows:
                continue
        kinds = list(dict.fromkeys(category for _, category, _ in rows))
        if found.several:
            named = tuple(names[kind] for kind in kinds)
            found.entries.append(Entry(f"image {image}", name, labels=named))
            continue
        if len(kinds) > 1:
            raise InputError(
                f"{file} gives {name} {len(kinds)} labels ({some([names[kind] for kind in kinds])}): {CROP}."
            )
        found.entries.append(Entry(f"image {image}", name, names[kinds[0]] if kinds else ""))
    return found


def read_cvat_xml(file: Path, options: TableOptions) -> Found:
    """The tags of "CVAT for images", or its boxes.

    Raises:
        InputError: it is another file, or an image has several tags.
    """
    notes: list[str] = []
    text = read_text(file, notes)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{file} declares a document type, as CVAT never does: export it again.")
    try:
        root = ElementTree.fromstring(
            text.encode("utf-8") if "encoding=" not in text[:100] else _plain_xml(text)
        )
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{file} is not XML ({error}): export it again.") from error
    images = root.findall("image")
    if root.tag != "annotations" or not images:
        raise InputError(f'{file} is not an export of "CVAT for images", the one kind of XML that is read.')
    found = Found(file, notes=[*notes, "annotations of CVAT"], unlabeled_are_left_out=True)
    found.has_parts = any(image.get("subset") for image in images)
    found.several = options.several_labels and not options.crop_boxes
    for image in images:
        where, name, part = f"image {image.get('id', '?')}", image.get("name", ""), image.get("subset", "")
        if options.crop_boxes:
            boxes = image.findall("box")
            for box in boxes:
                if box.get("rotation", "0").strip("0.") != "":
                    raise InputError(
                        f"{file} has a box that is rotated in {where}: only upright boxes can be cropped."
                    )
                corners = [box.get(key) for key in ("xtl", "ytl", "xbr", "ybr")]
                found.entries.append(
                    Entry(
                        where,
                        name,
                        box.get("label", ""),
                        part,
                        box=box_of(file, where, corners, are_corners=True),
                    )
                )
            if boxes:
                continue
        tags = list(dict.fromkeys(tag.get("label", "") for tag in image.findall("tag")))
        if not tags:
            tags = list(dict.fromkeys(box.get("label", "") for box in image.findall("box")))
        if found.several:
            found.entries.append(Entry(where, name, part=part, labels=tuple(tags)))
            continue
        if len(tags) > 1:
            raise InputError(
                f"{file} gives {name} {len(tags)} labels ({some(tags)}): {CROP}, or keep one tag."
            )
        found.entries.append(Entry(where, name, tags[0] if tags else "", part))
    return found


def _plain_xml(text: str) -> bytes:
    """XML without its first line, which names an encoding that was decoded already."""
    return (
        text[text.index("?>") + 2 :].encode("utf-8") if text.lstrip().startswith("<?xml") else text.encode()
    )


def read_list(file: Path) -> Found:
    """The lines of CVAT's ImageNet export without images: a path and the number of a line of synsets.txt.

    Lines with a path and the name of a class are read too.

    Raises:
        InputError: a line is of another form, or its number is not in synsets.txt.
    """
    notes: list[str] = []
    synsets = file.parent / SYNSETS
    names = None
    if synsets.is_file():
        names = [line.strip() for line in read_text(synsets, notes).splitlines() if line.strip()]
        notes.append(f"the names of the classes are those of {SYNSETS}")
    found = Found(file, notes=notes)
    for number, line in enumerate(read_text(file, notes).splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            words = shlex.split(line.replace("\\", "\\\\").replace("'", "\\'"))
        except ValueError:
            words = line.split()
        if len(words) != 2 or not (is_image_name(words[0]) or names is not None):
            several = len(words) > 2 and names is not None
            raise InputError(
                f"{file} has {f'{len(words) - 1} labels' if several else 'not a path and a label'} in "
                f"{where}: give "
                "a path and one label per line, or a CSV file."
            )
        path, label = words
        if names is not None:
            if not label.isdecimal() or int(label) >= len(names):
                raise InputError(f"{file} has the class {label} in {where}, which {SYNSETS} does not list.")
            label = names[int(label)]
        found.entries.append(Entry(where, path, label))
    return found
