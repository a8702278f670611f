"""Which images a run has seen: found again by their content, whatever their names are now."""

import numpy as np
import pytest

from keras_vit.data.image_set import ImageSet
from keras_vit.data.origin import content_hash, find_root, roots
from keras_vit.data.reading import read_images
from keras_vit.data.split import Split
from keras_vit.errors import InputError
from keras_vit.runs.images import IMAGES, read_record, record_images
from keras_vit.runs.known import known_images
from tests.runs.drawn import gray, png

pytestmark = pytest.mark.same_on_every_backend

CLASSES = ("dots", "lines")
PARTS = {"train": [0, 1, 4], "validation": [2], "test": [3, 5]}
IMAGES_OF_RUN = {f"{'dots' if i < 3 else 'lines'}/{i}.png": png(i) for i in range(6)}


def image_set(files, class_names=CLASSES, labels=None):
    """An image set of encoded images by name; the folder of the name is the class."""
    names = tuple(files)
    labels = labels or {}
    found = [class_names.index(labels.get(name, name.split("/")[0])) for name in names]
    return ImageSet("images", class_names, list(files.values()), names, np.array(found))


@pytest.fixture
def record():
    split = Split(*(np.array(PARTS[part]) for part in ("train", "validation", "test")))
    made = image_set(IMAGES_OF_RUN)
    return record_images(made, split, read=read_images(made.images))


def without(*names):
    return {name: image for name, image in IMAGES_OF_RUN.items() if name not in names}


def renamed(**names):
    """`IMAGES_OF_RUN` with other names for the images of these numbers."""
    return {names.get(f"i{name[-5]}", name): image for name, image in IMAGES_OF_RUN.items()}


SAME = {
    # the images as they are now -> what is said
    "the same": (IMAGES_OF_RUN, []),
    "in another order": (dict(reversed(IMAGES_OF_RUN.items())), []),
    "one was added": ({**IMAGES_OF_RUN, "dots/new.png": png(9)}, ["has 1 image that the run does not know"]),
    "all were renamed": (
        {f"{name[:-4]}-renamed.png": image for name, image in IMAGES_OF_RUN.items()},
        ["6 images of the run have another name now (dots/0.png; "],
    ),
    "two have each other's names": (
        renamed(i3="lines/5.png", i5="lines/3.png"),
        ["2 images of the run have another name now (lines/3.png; lines/5.png): found by content"],
    ),
    "renamed, and another has its name": (
        {**renamed(i0="dots/7.png"), "dots/0.png": png(9)},
        ["has 1 image that the run does not know (dots/0.png)", "1 image of the run has another name now"],
    ),
    "a copy was added": (
        {"dots/a copy.png": IMAGES_OF_RUN["dots/0.png"], **IMAGES_OF_RUN},
        ["1 image that the run does not know (dots/a copy.png)"],
    ),
    "a copy of another class was added": (
        {"lines/a copy.png": IMAGES_OF_RUN["dots/0.png"], **IMAGES_OF_RUN},
        ["1 image that the run does not know (lines/a copy.png)"],
    ),
    "a copy, and the image was renamed": (
        {"lines/a.png": IMAGES_OF_RUN["dots/0.png"], **renamed(i0="dots/z.png")},
        ["1 image that the run does not know (lines/a.png)", "another name now (dots/0.png)"],
    ),
}


@pytest.mark.parametrize(("files", "notes"), SAME.values(), ids=SAME.keys())
def test_images_are_found_by_content(record, files, notes):
    found = record.find(image_set(files))
    found.check(tuple(PARTS), "Restore them.")
    restored = found.restored()
    assert dict(zip(restored.names, restored.images, strict=True)) == IMAGES_OF_RUN
    assert [restored.class_names[i] for i in restored.labels] == [n.split("/")[0] for n in IMAGES_OF_RUN]
    for part, places in PARTS.items():
        assert getattr(record.split(), part).tolist() == places
        assert found.restored([part]).names == tuple(list(IMAGES_OF_RUN)[i] for i in places)
    said = found.notes()
    assert len(said) == len(notes)
    for line, wanted in zip(said, notes, strict=True):
        assert wanted in line


CHANGED = {
    "removed": (without("lines/3.png"), "1 is gone (lines/3.png, test)"),
    "replaced": ({**IMAGES_OF_RUN, "lines/3.png": png(9)}, "1 was replaced (lines/3.png, test)"),
    "another class": (
        renamed(i3="dots/3.png"),
        "1 has another label (lines/3.png, test, was 'lines', is 'dots')",
    ),
    "a class was renamed": (
        {name.replace("dots", "spots"): image for name, image in IMAGES_OF_RUN.items()},
        "3 have another label (dots/0.png, train, was 'dots', is 'spots'; ",
    ),
    "labels were exchanged": (
        {name.translate(name.maketrans("", "")): png(5 - i) for i, name in enumerate(IMAGES_OF_RUN)},
        "6 have another label",
    ),
    "all are others": ({name: png(20 + i) for i, name in enumerate(IMAGES_OF_RUN)}, "6 were replaced ("),
    "several": (
        {**without("dots/0.png", "dots/1.png"), "lines/3.png": png(9)},
        "1 was replaced (lines/3.png, test), 2 are gone (dots/0.png, train; dots/1.png, train)",
    ),
}


@pytest.mark.parametrize(("files", "message"), CHANGED.values(), ids=CHANGED.keys())
def test_changed_images_are_named(record, files, message):
    classes = ("dots", "lines", "spots")
    found = record.find(image_set(files, classes))
    with pytest.raises(InputError) as raised:
        found.check(tuple(PARTS), "Restore them.")
    assert message in str(raised.value)
    assert str(raised.value).startswith("The images in images have changed: ")
    assert str(raised.value).endswith(". Restore them.")


def test_five_names_are_given(record):
    with pytest.raises(InputError, match=r"6 were replaced \(([^;]+; ){4}[^;]+, and 1 more\)"):
        record.find(image_set({name: png(20 + i) for i, name in enumerate(IMAGES_OF_RUN)})).check(
            tuple(PARTS), ""
        )


def test_what_is_not_needed_is_said_only(record):
    found = record.find(image_set(without("dots/0.png")))
    found.check(["test"], "Restore them.")
    assert found.notes(["test"]) == [
        "Of the other images of the run, 1 is gone (dots/0.png, train): this needs none of them."
    ]
    assert found.restored(["test"]).names == ("lines/3.png", "lines/5.png")


def test_merged_validation_images_are_training_images(record):
    assert record.split(merge_validation=True).train.tolist() == [0, 1, 2, 4]
    assert record.split(merge_validation=True).validation.tolist() == []
    assert record.merged().of_part("train") == [0, 1, 2, 4]


def test_the_file_is_read_as_it_was_written(record, tmp_path):
    record.write(tmp_path)
    assert read_record(tmp_path, CLASSES) == record
    assert read_record(tmp_path / "none", CLASSES) is None


@pytest.mark.parametrize("name", ["=1+1", "-5", "@a", "'=1", "a,b", 'a"b', "é", "a b"])
def test_a_name_that_a_table_could_mistake_is_read_back(name, tmp_path):
    classes = (name, "lines")
    files = {f"{name}/0.png": png(0), "lines/1.png": png(1), "lines/2.png": png(2)}
    made = image_set(files, classes)
    record = record_images(made, Split(np.array([0, 1]), np.array([], int), np.array([2])))
    record.write(tmp_path)
    found = read_record(tmp_path, classes).find(made)
    found.check(tuple(PARTS), "")
    assert found.notes() == []
    assert found.restored().labels.tolist() == [0, 1, 1]


DAMAGED = {
    "empty": (lambda text: "", "it has no images"),
    "no column": (lambda text: text.replace("sha256", "sha", 1), "sha256 is missing"),
    "a short hash": (lambda text: text.replace(content_hash(png(0)), "ab"), "0.sha256"),
    "an upper-case hash": (
        lambda text: text.replace(content_hash(png(0)), content_hash(png(0)).upper()),
        "0.sha256",
    ),
    "an unknown part": (lambda text: text.replace(",test", ",exam"), "part"),
    "an unknown class": (lambda text: text.replace(",dots,", ",spots,"), "labels that are not classes"),
    "no label": (lambda text: text.replace(",dots,", ",,", 1), "only images of the part unlabeled"),
    "half a row": (lambda text: text + "a,b\n", "a row has fewer cells"),
    "a cell too many": (lambda text: text.replace(",test", ",test,", 1), "a row has more cells"),
    "bytes": (lambda text: b"\xff\xfe\x00", "is not a CSV file"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_refused(damage, message, record, tmp_path):
    record.write(tmp_path)
    text = damage((tmp_path / IMAGES).read_text())
    (tmp_path / IMAGES).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=rf"images\.csv is damaged \(.*{message}"):
        read_record(tmp_path, CLASSES)


# Which of other images the run has seen


@pytest.mark.parametrize(
    "kind", ["the files", "files on the disk", "other files of the same pixels", "arrays"]
)
def test_known_images_are_counted(kind, record, tmp_path):
    files = {**IMAGES_OF_RUN, "dots/new.png": png(9)}
    images = list(files.values())
    if kind == "files on the disk":
        for i, image in enumerate(images):
            (tmp_path / f"{i}.png").write_bytes(image)
        images = [tmp_path / f"{i}.png" for i in range(len(images))]
    elif kind == "other files of the same pixels":
        images = [png(i, "BMP") for i in (*range(6), 9)]
    elif kind == "arrays":
        images = [gray(i) for i in (*range(6), 9)]
    known = known_images(record, images, read_images(images))
    assert known.parts == ("train", "train", "validation", "test", "train", "test", None)
    assert known.counts() == {"trained": 3, "chose_epoch": 1, "tested": 2}
    assert known.judged_by == [3, 5, 6]


def test_an_image_in_two_parts_counts_as_trained_on():
    made = image_set({"dots/0.png": png(0), "lines/1.png": png(1), "lines/2.png": png(0)})
    for train, test in (([0, 1], [2]), ([1, 2], [0])):
        record = record_images(made, Split(np.array(train), np.array([], int), np.array(test)))
        assert known_images(record, [png(0)], read_images([png(0)])).parts == ("train",)


# Where they are


def test_a_root_is_found_where_it_was_or_beside_the_run(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    config = {"train": {"data": "data"}, "data": roots("data", run)}
    assert find_root(config, run) == "data"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find_root(config, run) == str(tmp_path / "data")
    (tmp_path / "elsewhere" / "data").mkdir()  # another folder of that name
    assert find_root(config, run) == str(tmp_path / "data")
    # The run and its images are moved together.
    (tmp_path / "moved").mkdir()
    for name in ("data", "runs"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    monkeypatch.chdir(tmp_path)
    moved = tmp_path / "moved" / "runs" / "first"
    assert find_root(config, moved) == str(tmp_path / "moved" / "data")
    (tmp_path / "moved" / "data").rmdir()
    with pytest.raises(InputError, match=r"were in .*/data, which is gone: give .* with --data"):
        find_root(config, moved)


@pytest.mark.parametrize("data", [None, "tfds:mnist"])
def test_images_without_a_folder_have_no_root(data, tmp_path):
    assert roots(data, tmp_path) == {}
    assert find_root({"train": {"data": data}, "data": {}}, tmp_path) == data
