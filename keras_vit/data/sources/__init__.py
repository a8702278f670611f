"""Where images come from. One file per kind of source; each has a reader that returns an `ImageSet`.

To add a kind, write its reader in a new file and add one line to `BY_SUFFIX`, for a kind of file, or to
`BY_PREFIX`, for a name.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from keras_vit.data.groups import PARENT, with_groups
from keras_vit.data.image_set import Image, ImageSet
from keras_vit.data.ordered import in_given_order
from keras_vit.data.sources.archive import read_zip
from keras_vit.data.sources.arrays import read_npz
from keras_vit.data.sources.fixes import Fix, with_fixes
from keras_vit.data.sources.folder import read_folder
from keras_vit.data.sources.kinds import IMAGE_SUFFIXES
from keras_vit.data.sources.steel import draw_steel_defects
from keras_vit.data.sources.tables import (
    READERS,
    TableOptions,
    is_export,
    list_table,
    read_export,
    read_table,
)
from keras_vit.data.sources.tables.own import is_own, read_own
from keras_vit.data.sources.tfds import read_tfds
from keras_vit.errors import InputError
from keras_vit.files import require_regular
from keras_vit.text import shown

LOGGER = logging.getLogger(__name__)

Classes = Sequence[str] | None

SHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")

BY_SUFFIX: dict[str, Callable[[Path, Classes], ImageSet]] = {".zip": read_zip, ".npz": read_npz}
"""The suffix of a file, in lower case -> its reader. A folder has `read_folder`; tables have their own
readers, since they take options too: `tables.READERS`."""

BY_PREFIX: dict[str, Callable[[str, Classes], ImageSet]] = {"tfds:": read_tfds}
"""The beginning of a name that is not a path -> the reader, which gets the rest of the name."""


def load_image_set(
    data: str | Path | None = None,
    classes: Classes = None,
    *,
    crop_boxes: bool = False,
    allow_outside: bool = False,
    group_by: str | None = None,
    several_labels: bool = False,
    label_columns: Sequence[str] = (),
    ordered: Sequence[str] = (),
    fixes: str | Path | Sequence[Fix] | None = None,
) -> ImageSet:
    """The labelled images of any source that this package reads.

    | `data` | images |
    |---|---|
    | nothing | the drawn steel defects of `keras_vit.data.sources.steel`, always the same ones |
    | a folder of class folders | the folder's name is the class: `scratches/7.jpg` |
    | a folder of train, validation and test folders of class folders | `parts` follows them |
    | a folder of files whose names give the class | `scratches_7.jpg`, or NEU's short names: `Sc_7.bmp` |
    | a `.zip` of any of these | read into memory: at most 2 GiB |
    | an `.npz` file | arrays x and y, images and labels, or x_train, y_train, ...: `arrays.read_npz` |
    | a `.csv`, `.tsv`, `.jsonl` or `.parquet` table | columns path and label; part, group, weight, bbox |
    | exports of Label Studio, Roboflow, CVAT, COCO | `.csv`, `.json`, `.xml`, `.txt`, or Roboflow's folder |
    | the `images.csv` of a run | its images, labels and parts |
    | `tfds:NAME` or `tfds:NAME/CONFIG` | a data set of TensorFlow Datasets, downloaded at first use |

    Files are images by their suffix or by their first bytes, whatever their suffix; those of the system are
    left out. Parts have the usual names: `training_set`, `val`, `seg_test`. No image is decoded:
    `keras_vit.data.audit.audit_images` says whether each can be.

    What is skipped, not used or read in one of several ways is in `notes`, and in the log, one line each.

    Args:
        data: a path or a `tfds:` name.
        classes: of a run that the images are to judge; `None` for images to train on. One class is then
            enough, or a test part, and class names are those of the run where they are the same.
        crop_boxes: whether each box of an export is an image; a column bbox of a table always is.
        allow_outside: whether relative paths may leave the folder of their table.
        group_by: `"column:NAME"` of a table, `"regex:EXPRESSION"` or `"parent"`, see
            `keras_vit.data.groups`; by default a table's column called group. With `"parent"`, the folders
            that hold images are groups, and the classes are above them.
        several_labels: whether an image may have several labels, or none: of a table, where a label is a
            part of a cell, a column with 0 and 1, or a row. Lists and columns that hold several need not be
            announced.
        label_columns: the columns of a table with these labels.
        ordered: the names of all classes from the lowest to the highest, which is then their order.
        fixes: a CSV file of what a person has decided on the images, which are dropped or relabelled here
            alone: see `keras_vit.data.sources.fixes`; or the rows that a run has recorded.

    Raises:
        InputError: the source is missing, of an unknown kind, damaged, unsafe, empty, of one class only, or
            can be read in two ways.
    """
    options = TableOptions(
        crop_boxes, allow_outside, several_labels, tuple(label_columns), classes is not None
    )
    image_set = with_fixes(_load(data, classes, options, group_by == PARENT), fixes, classes)
    image_set = with_groups(image_set, group_by)
    if (several_labels or label_columns) and not image_set.several and classes is None:
        raise InputError(
            f"{image_set.source} has one class per image: omit --several-labels and --label-columns, or give "
            "a table with several labels."
        )
    if ordered:
        image_set = in_given_order(image_set, ordered)
    if classes is not None:
        image_set = image_set.in_classes(classes)
    for note in image_set.notes:
        LOGGER.warning("%s: %s.", image_set.source, shown(note))
    return image_set


def images_of_table(
    path: str | Path, classes: Sequence[str], crop_boxes: bool = False, allow_outside: bool = False
) -> dict[str, Image]:
    """The images of a table by their names, whether they have labels or not.

    Args:
        path: of the table.
        classes: of the run that the images are for.
        crop_boxes, allow_outside: as `load_image_set` takes them.

    Raises:
        InputError: the table cannot be used.
    """
    options = TableOptions(crop_boxes, allow_outside)
    if is_own(Path(path)):
        found = load_image_set(path, classes)
        return dict(zip(found.names, found.images, strict=True))
    images, notes = list_table(Path(path), options)
    for note in notes:
        LOGGER.warning("%s: %s.", shown(path), shown(note))
    return images


def is_table(path: str | Path) -> bool:
    """Whether a path is that of a table, by its suffix."""
    return Path(path).suffix.lower() in READERS and not Path(path).is_dir()


def _load(
    data: str | Path | None, classes: Classes, options: TableOptions, in_groups: bool = False
) -> ImageSet:
    is_table = data is not None and _is_table(Path(data).expanduser())
    if not is_table and options.crop_boxes:
        raise InputError(
            f"{data or 'The drawn defects'} is not a table, so it has no boxes to crop: give a table, or "
            "omit --crop-boxes."
        )
    if data is None:
        return draw_steel_defects(seed=0)
    for prefix, read_name in BY_PREFIX.items():
        if isinstance(data, str) and data.startswith(prefix):
            return read_name(data.removeprefix(prefix), classes)
    path = Path(data).expanduser()
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise InputError(f"{data!r} cannot be opened: {error}.") from error
    if not exists:
        raise InputError(
            f"No such file or folder: {data}. Check the path, or give none for the drawn defects."
        )
    suffix = path.suffix.lower()
    if is_folder:
        return read_export(path, classes, options) if is_table else read_folder(path, classes, in_groups)
    try:
        require_regular(path)  # a pipe would block whatever opens it
    except OSError as error:
        raise InputError(f"{data} cannot be read: {error.strerror}. Give a folder or a file.") from error
    if suffix == ".zip":
        return read_zip(path, classes, in_groups)
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix](path, classes)
    if is_own(path):
        return read_own(path, classes, options, _load)
    if is_table:
        return read_table(path, classes, options)
    if suffix in SHEETS:
        raise InputError(f"{data} is a spreadsheet: save it as CSV in UTF-8, and give that.")
    if suffix in IMAGE_SUFFIXES:
        raise InputError(f"{data} is one image. Give the folder that holds the folders of the classes.")
    raise InputError(
        f"{data} is not a folder, nor a file of a kind that is read ({', '.join([*BY_SUFFIX, *READERS])}). "
        "Give one of "
        "these, or tfds:NAME."
    )


def _is_table(path: Path) -> bool:
    """Whether a path is that of a table, or of a folder with a table for each part."""
    try:
        return is_export(path) if path.is_dir() else path.suffix.lower() in READERS
    except (OSError, ValueError):
        return False
