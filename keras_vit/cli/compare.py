"""`keras-vit compare`"""

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from keras_vit.cli.options import option_group
from keras_vit.comparison.config import configure, options
from keras_vit.process.backend import import_quietly
from keras_vit.process.children import stop_on_signals
from keras_vit.process.compiled import keep_compilations
from keras_vit.text import say

if TYPE_CHECKING:
    CompareOptions = dict[str, Any]
else:
    CompareOptions = option_group("CompareOptions", options())

OF_RUNS = ("out", "crop_boxes", "allow_outside", "fixes")
"""Options that comparing runs has too."""


@dataclass
class Compare:
    """Compare kinds of models on images, or two and more finished runs.

    With images it answers whether a ViT pays for them: a CNN, a ResNet and ViTs are trained on few and on all
    of them, and a page shows what each reaches and costs. The same command continues a comparison that was
    cut off. With two or more run folders it compares their answers about the same test images.

    Examples:
      keras-vit compare images
      keras-vit compare images --init vit.safetensors --max-minutes 60
      keras-vit compare images --models cnn defect-conv --per-class 10 30 all --repeats 5
      keras-vit compare runs/first runs/second
      keras-vit compare runs/first runs/second --data new_strips
    """

    sources: Positional[tuple[str, ...]]
    """images, as train --data takes them (by default drawn steel defects); or two or more run folders"""
    comparison: CompareOptions
    data: str | None = None
    """labelled images to compare run folders on; by default the test images that no run has learned from"""
    json: bool = False
    """print the result as JSON"""

    def __call__(self) -> None:
        if len(self.sources) > 1:
            self._runs()
        else:
            self._check_alone()
            self._models()

    def _check_alone(self) -> None:
        """Raises InputError where one source is given that takes another one."""
        from keras_vit.errors import InputError

        if self.sources and (Path(self.sources[0]) / "metrics.json").is_file():
            raise InputError(f"{self.sources[0]} is a run: give another one to compare it with.")

    def _runs(self) -> None:
        from keras_vit.errors import InputError

        for name in self.comparison:
            if name not in OF_RUNS:
                option = name.replace("_", "-")
                raise InputError(
                    f"--{option} is for a comparison of models on images, and {len(self.sources)} folders "
                    "are given: omit it, or give the images alone."
                )
        from keras_vit.files import is_taken

        given = self.comparison.get("out")
        if given is not None and is_taken(Path(given)):
            raise InputError(f"{given} exists already: give --out a new folder.")
        keep_compilations()
        import_quietly(find_devices=True)
        from keras_vit.evaluation.pairs import in_words
        from keras_vit.runs.compare import compare_runs
        from keras_vit.runs.compare_outputs import REPORT, free_folder, write_comparison

        read = {name: self.comparison[name] for name in OF_RUNS[1:] if name in self.comparison}
        if read and self.data is None:
            option = next(iter(read)).replace("_", "-")
            raise InputError(f"--{option} is for --data: give that too, or omit --{option}.")
        with contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext():
            found = compare_runs(self.sources, self.data, **read)
        if self.json:
            say(json.dumps(found.to_dict()))
        else:
            for note in found.notes:
                say(note)
            say(*(in_words(found.figures, i, found.names) for i in range(1, len(found.names))))
        if given is not None or not self.json:
            out = free_folder(found) if given is None else Path(given)
            write_comparison(found, out, self.data or "the test images of the runs")
            say(f"report: {out / REPORT}", stream=sys.stderr if self.json else None)

    def _models(self) -> None:
        from keras_vit.errors import InputError

        if self.sources and self.data is not None:
            raise InputError(
                f"--data names images to compare two or more run folders on, and {self.sources[0]} is one "
                "name: give another run folder, or the images alone."
            )
        config = configure(self.sources[0] if self.sources else self.data, self.comparison)
        keep_compilations()
        stop_on_signals()
        import_quietly(find_devices=True)
        from keras_vit.comparison.run import compare

        with contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext():
            found = compare(config)
        if self.json:
            say(json.dumps(found))
