"""`keras-vit predict`"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from keras_vit.errors import InputError
from keras_vit.process.backend import import_quietly
from keras_vit.process.compiled import keep_compilations
from keras_vit.process.exit_codes import FAILED, FINE
from keras_vit.text import say, shown

if TYPE_CHECKING:
    from keras_vit.runs.predict import Prediction


@dataclass
class Predict:
    """Classify image files with the model of a run; those unlike its training images are marked as rejected.

    Examples:
      keras-vit predict runs/first strip_17.jpg strip_18.png
      keras-vit predict runs/first strip_17.jpg --json
    """

    run: Positional[Path]
    """a run folder"""
    images: Positional[tuple[Path, ...]]
    """image files"""
    flips_at_test: bool = False
    """average over each image and its three mirror images, which takes four times as long"""
    json: bool = False
    """print a JSON list with all probabilities"""

    def __call__(self) -> int:
        if not self.images:
            raise InputError("Give at least one image file after the run folder.")
        keep_compilations()
        import_quietly(find_devices=True)
        from keras_vit.runs.predict import predict

        found = predict(self.run, self.images, self.flips_at_test)
        if self.json:
            say(json.dumps([dataclasses.asdict(item) for item in found]))
        else:
            width = max(len(shown(item.image)) for item in found)
            for item in found:
                say(f"{shown(item.image):{width}}  {item.error or _answer(item)}")
        return FAILED if any(item.error for item in found) else FINE


def _answer(item: "Prediction") -> str:
    rejected = "  rejected: unlike the training images" if item.reject else ""
    return f"{item.label}  {item.confidence:.1%}{rejected}"
