"""`keras-vit evaluate`"""

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from keras_vit.cli.decision import Decision
from keras_vit.cli.figures import figures_in_words
from keras_vit.evaluation.decision import DECISION, lines_of_decision, notices
from keras_vit.evaluation.ordered import order_in_words
from keras_vit.evaluation.trust import REFERRAL, SETS, lines_of_trust
from keras_vit.process.backend import import_quietly
from keras_vit.process.compiled import keep_compilations
from keras_vit.text import say, shown


@dataclass
class Evaluate:
    """Evaluate the model of a run on its test images, or on other images.

    Examples:
      keras-vit evaluate runs/first
      keras-vit evaluate runs/first --data more_images --leave-out-known
      keras-vit evaluate runs/first --corruptions
      keras-vit evaluate runs/first --accept-risk 0.01
      keras-vit evaluate runs/first --min-recall scratches=0.98 crazing=0.9
      keras-vit evaluate runs/first --costs costs.csv
    """

    run: Positional[Path]
    """a run folder"""
    data: str | None = None
    """other images, all of them evaluated; by default the run's own test images"""
    crop_boxes: bool = False
    """with --data, make each box of a table an image, as train does"""
    allow_outside: bool = False
    """with --data, let relative paths leave the folder of their table"""
    fixes: str | None = None
    """with --data, drop and relabel images as this fixes.csv says"""
    leave_out_known: bool = False
    """with --data, leave out images that trained the run or chose its epoch"""
    flips_at_test: bool = False
    """average over each image and its three mirror images, which takes four times as long"""
    corruptions: bool = False
    """also evaluate the images with noise, blur, other light, JPEG and rotation, at three strengths each"""
    decision: Decision = field(default_factory=Decision)
    json: bool = False
    """print all figures as JSON"""

    def __call__(self) -> None:
        keep_compilations()
        import_quietly(find_devices=True)
        from keras_vit.runs.evaluate import evaluate

        with contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext():
            found = evaluate(
                self.run,
                self.data,
                self.flips_at_test,
                self.leave_out_known,
                self.corruptions,
                self.decision.accept_risk,
                crop_boxes=self.crop_boxes,
                allow_outside=self.allow_outside,
                min_recall=self.decision.min_recall,
                costs=self.decision.costs,
                fixes=self.fixes,
            )
        if self.json:
            say(json.dumps(found))
            return
        for note in found["notes"]:
            say(note)
        how = ", mean over mirror images" if self.flips_at_test else ""
        several = "micro_f1" in found
        say(f"{found['source']}: {'' if several else 'accuracy '}{figures_in_words(found)}{how}")
        if several:
            say(*label_table(found["per_class"]))
            if self.corruptions:
                _say_corruptions(found["corruptions"])
            return
        width = max(len(shown(row["name"])) for row in found["per_class"])
        say(f"{'class':{width}}  precision  recall      F1  images")
        for row in found["per_class"]:
            shares = "".join(_share(row[key]) for key in ("precision", "recall", "f1"))
            say(f"{shown(row['name']):{width}}   {shares} {row['support']:7}")
        if (line := order_in_words(found)) is not None:
            say(line)
        if found[DECISION] is not None:
            say(*lines_of_decision(found[DECISION], found[DECISION]["test"]), *notices(found[DECISION]))
        say(*lines_of_trust(found[SETS], found[REFERRAL]))
        if self.corruptions:
            _say_corruptions(found["corruptions"])


def label_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The figures of several labels as lines."""
    width = max(5, *(len(shown(row["name"])) for row in rows))
    columns = ("average_precision", "precision", "recall", "f1", "threshold")
    lines = [f"{'label':{width}}       AP  precision  recall      F1  threshold  images"]
    for row in rows:
        ap, precision, recall, f1, threshold = (_share(row[key]) for key in columns)
        lines.append(
            f"{shown(row['name']):{width}} {ap}   {precision}{recall}{f1}   {threshold} {row['support']:7}"
        )
    return lines


def _share(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.3f'):>8}"


def _say_corruptions(found: dict[str, Any]) -> None:
    strengths = sorted({row["strength"] for row in found["rows"]})
    say(f"corrupted: accuracy {found['mean']:.1%} on average, {found['clean']:.1%} without")
    say(f"{'kind':10}" + "".join(f"  strength {strength}" for strength in strengths))
    for kind in dict.fromkeys(row["kind"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["kind"] == kind]
        say(f"{kind:10}" + "".join(f"{row['accuracy']:12.1%}" for row in rows))
