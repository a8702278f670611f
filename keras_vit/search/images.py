"""The images of a search: it draws its split once, and its trials and its best run keep to it."""

from collections.abc import Mapping
from typing import Any

from keras_vit.data.origin import find_root, recorded_fixes
from keras_vit.runs.images import IMAGES, ImageRecord, read_record
from keras_vit.sealed import check_file
from keras_vit.search.config import SearchConfig
from keras_vit.search.results import SEARCH, read_settings

FIX = "restore it, or begin a search with another --out"


def images_of(config: SearchConfig) -> tuple[ImageRecord | None, str | None, list[str]]:
    """What a search remembers of its images, where they are now, and what cannot be checked, in lines.

    Args:
        config: the search, new or begun before.

    Raises:
        InputError: its files are damaged, or the images are gone.
    """
    file = config.folder / SEARCH
    if not file.is_file():
        return None, config.data, []
    found = read_settings(file)
    check_file(config.folder / IMAGES, found, FIX)
    record = read_record(config.folder, found["data"]["class_names"])
    root = find_root(_as_run(config, found), config.folder)
    if record is not None:
        return record, root, []
    return (
        None,
        root,
        [
            f"{config.folder} has no {IMAGES}: whether its images have changed is told by their names alone. "
            "From now on they are read as a viewer shows them: turned as Exif says, and on a background."
        ],
    )


def fixes_of(config: SearchConfig) -> dict[str, Any]:
    """The argument `fixes` of `load_image_set` that a search which was begun before has recorded."""
    file = config.folder / SEARCH
    return recorded_fixes(read_settings(file)) if file.is_file() else {}


def _as_run(config: SearchConfig, found: Mapping[str, Any]) -> dict[str, Any]:
    return {"train": {"data": config.data}, "data": found["data"]}
