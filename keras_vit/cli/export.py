"""`keras-vit export`"""

import contextlib
import dataclasses
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from keras_vit.cli.decision import Decision
from keras_vit.process.backend import import_quietly
from keras_vit.process.children import stop_on_signals
from keras_vit.serving import Format
from keras_vit.text import say


@dataclass
class Export:
    """Write the model of a run for TensorFlow Serving, or for another runtime.

    The export is compared with the Keras model on the run's test images before it appears in its folder.

    Examples:
      keras-vit export runs/first --to models
      keras-vit export runs/first --to models --name steel --version 7
      keras-vit export runs/folds --fold 1 --to models
      keras-vit export runs/first --to models --format litert --int8
      keras-vit export runs/first --to weights --format huggingface
    """

    run: Positional[Path]
    """a run folder"""
    to: Path
    """the folder of all models; the export is TO/NAME/VERSION"""
    name: str | None = None
    """of the model; by default vit, or vit-FORMAT for another format than a SavedModel"""
    version: int | None = None
    """by default the one after the newest"""
    format: Format = "savedmodel"
    """savedmodel takes image files; onnx, litert and openvino take pixels of the model's size; timm and
    huggingface are weights for these libraries"""
    int8: bool = False
    """8 bits for the fully connected layers, with litert"""
    flips_at_test: bool = False
    """the model averages over each image and its three mirror images, and takes four times as long"""
    decision: Decision = field(default_factory=Decision)
    fold: int | None = None
    """which of the folds to export, where RUN is the folder of all"""
    data: str | None = None
    """other images to compare on, if those of the run are gone"""
    json: bool = False
    """print the folder and the comparison as JSON"""

    def __call__(self) -> None:
        stop_on_signals()
        import_quietly(find_devices=True)
        from keras_vit.serving.bundle import export

        # The converters print; a script that asks for JSON reads nothing else from the standard output.
        with contextlib.redirect_stdout(sys.stderr):
            exported = export(
                self.run,
                self.to,
                name=self.name,
                version=self.version,
                format=self.format,
                int8=self.int8,
                flips=self.flips_at_test,
                data=self.data,
                accept_risk=self.decision.accept_risk,
                fold=self.fold,
                min_recall=self.decision.min_recall,
                costs=self.decision.costs,
            )
        found = exported.comparison
        if self.json:
            say(json.dumps({"path": str(exported.path), "comparison": dataclasses.asdict(found)}))
            return
        say(found.line())
        say(f"exported: {exported.path}")
