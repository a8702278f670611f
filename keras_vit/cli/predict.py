"""`keras-vit predict`"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tyro.conf import Positional

from keras_vit.cli.answers import print_counts, print_json, print_lines, with_bar
from keras_vit.cli.decision import Decision
from keras_vit.errors import InputError
from keras_vit.files import check_new_file, journal_of
from keras_vit.process.backend import import_quietly
from keras_vit.process.compiled import keep_compilations
from keras_vit.process.exit_codes import FINE, INCOMPLETE
from keras_vit.sealed import sha256_of
from keras_vit.text import say

if TYPE_CHECKING:
    from keras_vit.runs.sorting import How


@dataclass
class Predict:
    """Classify image files with the model of a run; those unlike its training images are marked as rejected.

    Examples:
      keras-vit predict runs/first strip_17.jpg strip_18.png
      keras-vit predict runs/first strip_17.jpg --json
      keras-vit predict runs/first strips/*.jpg --csv answers.csv --accept-risk 0.01
      keras-vit predict runs/first strip_17.jpg --heatmap maps
      keras-vit predict runs/first new_strips.csv --csv answers.csv
      keras-vit predict runs/first strips --csv answers.csv --sort-into sorted --min-confidence 0.9
      keras-vit predict runs/first 'archive/**/*.jpg' --sort-into sorted --move
    """

    run: Positional[Path]
    """a run folder"""
    images: Positional[tuple[Path, ...]]
    """image files, folders, zips, patterns such as 'strips/**/*.jpg', or tables of paths (.csv, .tsv, .jsonl,
    .parquet, or the export of a tool)"""
    flips_at_test: bool = False
    """average over each image and its three mirror images, which takes four times as long"""
    decision: Decision = field(default_factory=Decision)
    crop_boxes: bool = False
    """make each box of a table an image, as train does"""
    allow_outside: bool = False
    """let relative paths leave the folder of their table"""
    json: bool = False
    """print a JSON list with all probabilities"""
    csv: Path | None = None
    """write a table with a row per image to this new file, too"""
    sort_into: Path | None = None
    """put each image into the folder of its class in this new folder; or into _unreadable, _rejected, _refer
    or _unsure there"""
    copy: bool = False
    """copy the images into --sort-into, which is the default"""
    move: bool = False
    """move the images into --sort-into instead"""
    link: bool = False
    """make symbolic links in --sort-into instead"""
    min_confidence: float | None = None
    """--sort-into puts an image whose label has less confidence than this into _unsure"""
    heatmap: Path | None = None
    """also draw what speaks for the label over each image, as PNG into this folder; none is overwritten"""

    def __call__(self) -> int:
        if not self.images:
            raise InputError("Give at least one image file after the run folder.")
        if self.csv is not None and not journal_of(self.csv).exists():
            check_new_file(self.csv, "--csv")
        how = self._how_to_sort()
        keep_compilations()
        import_quietly(find_devices=True)
        from keras_vit.runs.bulk import Bulk, Job, Sorting
        from keras_vit.runs.ensemble import Ensemble, open_runs
        from keras_vit.runs.folder import Run, load_run
        from keras_vit.runs.listing import is_many

        run, heatmaps, sorting = open_runs(self.run), None, None
        if self.sort_into is not None and how is not None:
            sorting = Sorting(self.sort_into, how, self.min_confidence)
        if isinstance(run, Ensemble):
            say(run.line(), stream=sys.stderr)
        if self.heatmap is not None:
            load_run(self.run)  # one run draws them
        bulk = Bulk(
            Job(
                run.deciding(self.decision.min_recall, self.decision.costs),
                self.images,
                *(self.flips_at_test, self.decision.accept_risk, self.crop_boxes, self.allow_outside),
                csv=self.csv,
                sorting=sorting,
                rule=self._rule(),
            )
        )
        if self.heatmap is not None:
            heatmaps = self._heatmaps(bulk.names)
        if bulk.kept:
            say(f"{bulk.kept:,} of {len(bulk.names):,} images are finished: going on", stream=sys.stderr)
        for note in bulk.notes():
            say(note, stream=sys.stderr)
        # The lines of a million images would hide what matters; the table or the folders have them all.
        many = any(map(is_many, self.images)) or sorting is not None
        counted = many and (self.csv is not None or sorting is not None) and not self.json
        lines_on_screen = not counted and sys.stdout.isatty()
        answers = with_bar(bulk.answers(), len(bulk.names), bulk.kept, hidden=lines_on_screen)
        with contextlib.closing(answers):
            if self.json:
                errors = print_json(answers, sorting is not None)
            elif counted:
                errors = print_counts(answers)
            else:
                errors = print_lines(answers, bulk.names)
        if heatmaps is not None and isinstance(run, Run):
            from keras_vit.explain.figure import heatmap_png
            from keras_vit.explain.write import write_pictures

            explained = run.explanations([Path(name) for name in bulk.names])
            for _ in write_pictures(explained, heatmaps, heatmap_png, "--heatmap"):
                pass
        return INCOMPLETE if errors else FINE

    def _how_to_sort(self) -> "How | None":
        ways = [name for name in ("copy", "move", "link") if getattr(self, name)]
        if len(ways) > 1:
            raise InputError(f"--{ways[0]} and --{ways[1]} exclude each other: give one of them.")
        if self.sort_into is None:
            given = [f"--{name}" for name in ways] + ["--min-confidence"] * (self.min_confidence is not None)
            if given:
                raise InputError(f"{given[0]} is for --sort-into: give that too, or omit {given[0]}.")
            return None
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise InputError(f"--min-confidence must be from 0 to 1. Received: {self.min_confidence}")
        if self.heatmap is not None and self.move:
            raise InputError("--heatmap draws over the files where they are: omit --move, or --heatmap.")
        return cast("How", ways[0] if ways else "copy")

    def _rule(self) -> dict[str, Any]:
        costs = None if self.decision.costs is None else sha256_of(Path(self.decision.costs))
        return {"min_recall": self.decision.min_recall, "costs": costs}

    def _heatmaps(self, names: Sequence[str]) -> list[Path]:
        from keras_vit.data.sources import is_table
        from keras_vit.explain.names import picture_paths

        assert self.heatmap is not None
        if any(is_table(image) or image.suffix.lower() == ".zip" for image in self.images):
            raise InputError("--heatmap takes image files: give these instead of a table or a zip.")
        return picture_paths(names, self.heatmap, "--heatmap")
