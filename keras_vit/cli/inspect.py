"""`keras-vit inspect`"""

import json
from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional

from keras_vit.data.groups import GroupBy
from keras_vit.data.pixel_range import PixelRange
from keras_vit.data.preprocess import TiffPages
from keras_vit.data.split import SplitDuplicates
from keras_vit.process.backend import import_quietly
from keras_vit.process.exit_codes import FAILED, FINE
from keras_vit.text import say


@dataclass
class Inspect:
    """Inspect images before training: classes, sizes, unreadable files, duplicates.

    Examples:
      keras-vit inspect images
      keras-vit inspect images.zip --json
    """

    data: Positional[str | None] = None
    """what train --data takes; by default drawn steel defects"""
    crop_boxes: bool = False
    """make each box of a table an image, as train does"""
    allow_outside: bool = False
    """let relative paths leave the folder of their table"""
    several_labels: bool = False
    """as for train"""
    label_columns: tuple[str, ...] = ()
    """as for train"""
    fixes: str | None = None
    """as for train"""
    seed: int = 0
    """of the split into train, validation and test images, between which duplicates are searched for"""
    group_by: GroupBy | None = None
    """as for train"""
    split_duplicates: SplitDuplicates = "together"
    """as for train"""
    pixel_range: Annotated[PixelRange, tyro.conf.arg(aliases=["--window"])] = "auto"
    """as for train"""
    tiff_page: TiffPages | None = None
    """as for train"""
    json: bool = False
    """print the findings as JSON"""

    def __call__(self) -> int:
        import_quietly(find_devices=True)
        from keras_vit.data.audit import audit_split
        from keras_vit.data.sources import load_image_set
        from keras_vit.errors import InputError
        from keras_vit.runs.folder import several_runs

        if self.data is not None and several_runs(self.data):
            raise InputError(
                f"{self.data} holds runs (fold-1, ... or seed-0, ...), not images: give the folder of their "
                "images."
            )
        image_set = load_image_set(
            self.data,
            crop_boxes=self.crop_boxes,
            allow_outside=self.allow_outside,
            group_by=self.group_by,
            several_labels=self.several_labels,
            label_columns=self.label_columns,
            fixes=self.fixes,
        )
        audit = audit_split(image_set, self.seed, self.split_duplicates, self.pixel_range, self.tiff_page)
        say(json.dumps(audit.to_dict()) if self.json else audit)
        return FAILED if audit.unreadable else FINE
