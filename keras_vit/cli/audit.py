"""`keras-vit audit`, and its older name `keras-vit inspect`"""

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
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
class Audit:
    """Find what is wrong with images and labels: classes, sizes, duplicates, blur, shortcuts, wrong labels.

    Examples:
      keras-vit audit images
      keras-vit audit images --init auto --out audits/first
      keras-vit audit images --run runs/folds --out audits/second
      keras-vit audit images.zip --json
    """

    data: Positional[str | None] = None
    """what train --data takes; by default drawn steel defects"""
    init: str = "none"
    """published weights that judge the labels and find outliers: what train --init takes"""
    run: Path | None = None
    """the folder of train --folds, or of a probe, of these images, which judges the labels instead"""
    from_scratch: bool = False
    """train five small models now that judge the labels, which takes minutes"""
    out: Path | None = None
    """a new folder for the page where a person decides (index.html), findings.csv and audit.json"""
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
        from keras_vit.cleaning.check import check_images
        from keras_vit.cleaning.write import write_audit
        from keras_vit.errors import InputError
        from keras_vit.report.labelling import PAGE, check_new_folder, new_folder
        from keras_vit.runs.folder import several_runs
        from keras_vit.training.config import TrainConfig

        if self.data is not None and several_runs(self.data):
            raise InputError(
                f"{self.data} holds runs (fold-1, ... or seed-0, ...), not images: give the folder of their "
                "images."
            )
        if self.out is not None:
            check_new_folder(self.out)
        config = TrainConfig(
            data=self.data,
            init=self.init,
            crop_boxes=self.crop_boxes,
            allow_outside=self.allow_outside,
            several_labels=self.several_labels,
            label_columns=self.label_columns,
            fixes=self.fixes,
            seed=self.seed,
            group_by=self.group_by,
            split_duplicates=self.split_duplicates,
            pixel_range=self.pixel_range,
            tiff_page=self.tiff_page,
        )
        # A script that asks for JSON reads nothing else from the standard output.
        with contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext():
            checked = check_images(config, run=self.run, from_scratch=self.from_scratch)
            if self.out is not None:
                with new_folder(self.out) as folder:
                    write_audit(checked, folder)
        say(json.dumps(checked.to_dict()) if self.json else checked)
        if self.out is not None and not self.json:
            say(f"page: {self.out / PAGE}")
        return FAILED if checked.audit.unreadable else FINE


@dataclass
class Inspect(Audit):
    """The older name of audit, which does the same.

    Examples:
      keras-vit inspect images
      keras-vit inspect images.zip --json
    """
