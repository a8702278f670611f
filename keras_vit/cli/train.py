"""`keras-vit train`"""

import contextlib
import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_vit.cli.figures import figures_in_words, lines_of_labels
from keras_vit.cli.options import option_group
from keras_vit.data.augmentation import Augmentation
from keras_vit.evaluation.decision import DECISION, decision_of_run, lines_of_decision, notices
from keras_vit.evaluation.labels import AVERAGES
from keras_vit.evaluation.ordered import FIGURES, order_in_words
from keras_vit.evaluation.repeats import mean_in_words
from keras_vit.evaluation.trust import lines_of_run
from keras_vit.model.config import ViTConfig
from keras_vit.process.backend import import_quietly
from keras_vit.process.compiled import keep_compilations
from keras_vit.process.torchrun import continue_as_torchrun
from keras_vit.text import say
from keras_vit.training.config import TrainConfig
from keras_vit.training.config_file import read_config
from keras_vit.training.options import RECIPE, options_of, with_options
from keras_vit.training.recipe import Recipe

if TYPE_CHECKING:
    from keras_vit.runs.ensemble import Ensemble

    BasicOptions = dict[str, Any]
    ModelOptions = dict[str, Any]
    TrainingOptions = dict[str, Any]
    AugmentationOptions = dict[str, Any]
else:
    BasicOptions = option_group("BasicOptions", options_of(TrainConfig))
    ModelOptions = option_group("ModelOptions", options_of(ViTConfig))
    TrainingOptions = option_group("TrainingOptions", {"recipe": RECIPE, **options_of(Recipe)})
    AugmentationOptions = option_group("AugmentationOptions", options_of(Augmentation))


@dataclass
class Train:
    """Train a ViT on images and leave a run folder with the model and its report.

    Examples:
      keras-vit train
      keras-vit train --data images --model S/16 --epochs 50 --out runs/s16
      keras-vit train --data images --recipe lab --model defect/4 --seed 1
      keras-vit train --data images --depth 8 --drop-path-rate 0.1
      keras-vit train --model S/16 --pooling gap --num-registers 4 --layer-scale 1e-5 --remat
      keras-vit train --config best.json --merge-validation --out runs/best
      keras-vit train --data images --folds 5 --out runs/folds
      keras-vit train --out runs/s16 --resume
    """

    basic: BasicOptions
    architecture: ModelOptions
    training: TrainingOptions
    augmentation: AugmentationOptions
    config: Path | None = None
    """settings that the options below change: the best.json of a search, or the config.json of a run"""
    json: bool = False
    """print the folder, the report and the figures as JSON"""

    @cached_property
    def run(self) -> TrainConfig:
        """The settings of the run: those of the file or the defaults, changed by the given options."""
        settings = TrainConfig() if self.config is None else read_config(self.config)
        given = {**self.basic, **self.architecture, **self.training, **self.augmentation}
        return with_options(settings, given)

    def on_all_devices(self, arguments: list[str]) -> None:
        """On torch, where each device has a process of its own, continues as torchrun if there are several.

        Args:
            arguments: the words after `keras-vit`.
        """
        settings = self.run
        keep_compilations()
        import_quietly(find_devices=True)
        continue_as_torchrun(settings.distribute, settings.devices, ["-m", "keras_vit", *arguments])

    def __call__(self) -> None:
        settings = self.run
        import_quietly(find_devices=True)
        from keras_vit.distribution.cluster import current_process_is_chief
        from keras_vit.runs.ensemble import Ensemble
        from keras_vit.training.train import train

        # A script that asks for JSON reads nothing else from the standard output.
        with contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext():
            run = train(settings)
        if not current_process_is_chief():
            return
        if isinstance(run, Ensemble):
            self._say_several(run)
            return
        best, last = run.metrics["best"], run.metrics["last"]
        if self.json:
            answer: dict[str, Any] = {"run": str(run.path), "report": str(run.path / "report.html")}
            for name, found in (("best", best), ("last", last)):
                shown = ("epoch", "accuracy", "accuracy_interval", *AVERAGES, *FIGURES)
                answer[name] = {key: found[key] for key in shown if key in found}
            if DECISION in run.metrics:
                answer[DECISION] = run.metrics[DECISION]
            if "warning" in run.metrics:
                answer = {"warning": run.metrics["warning"], **answer}
            say(json.dumps(answer))
            return
        for name, found in (("best by validation", best), ("last", last)):
            what = "test figures" if run.several else "test accuracy"
            say(f"{what}, {name + ' epoch':24} {found['epoch']:4}: {figures_in_words(found)}")
        say(*lines_of_labels(run.metrics), *decision_of_run(run.metrics), *lines_of_run(run.metrics))
        say(f"report: {run.path / 'report.html'}")

    def _say_several(self, runs: "Ensemble") -> None:
        mean, pooled, report = runs.metrics["mean"], runs.metrics["pooled"], runs.path / "report.html"
        if self.json:
            names = [str(run.path) for run in runs.runs]
            answer = {"run": str(runs.path), "report": str(report), "runs": names, "mean": mean}
            if "warning" in runs.metrics:
                answer = {"warning": runs.metrics["warning"], **answer}
            say(json.dumps(answer))
            return
        if "warning" in runs.metrics:
            say(f"warning: {runs.metrics['warning']}")
        for name, found in mean.items():
            what = f"test {name.replace('_', ' ')}, mean of {len(runs.runs)} {runs.metrics['kind']}"
            say(f"{what:40}: {mean_in_words(found)}")
        if runs.metrics["kind"] == "folds":
            right = f"{pooled['correct']} of {pooled['images']} right"
            say(f"every image tested once: {right} ({pooled['accuracy']:.1%})")
        if (line := order_in_words(pooled)) is not None:
            say(line)
        if runs.decision is not None:
            say(*lines_of_decision(runs.decision, runs.decision["calibration"]), *notices(runs.decision))
        say(f"report: {report}")
