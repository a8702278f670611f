"""The end of a search: a default point to compare with, the best point tested, and the report."""

import dataclasses
from pathlib import Path
from typing import Any

from keras_vit.errors import InputError
from keras_vit.evaluation.trials import SearchRecord, TrialRecord
from keras_vit.files import partial_of, read_json, write_json, write_text
from keras_vit.process import children
from keras_vit.process.children import Context
from keras_vit.report.search import render_search_report
from keras_vit.runs.folder import load_run
from keras_vit.search.best import best_config, train_config_at
from keras_vit.search.config import SearchConfig
from keras_vit.search.folder import logs
from keras_vit.search.progress import minutes
from keras_vit.search.results import damaged_files, no_best_trial, read_search
from keras_vit.search.schema import Baseline
from keras_vit.search.worker import Images, Job, train_default, train_run
from keras_vit.text import say
from keras_vit.training.config import NONE
from keras_vit.training.recipe import RECIPE_CHANGES
from keras_vit.validation import check_plain

BASELINE, REPORT = "baseline.json", "report.html"


def conclude(config: SearchConfig, images: Images, context: Context, wall_seconds: float) -> None:
    """Writes report.html, and prints its first figures.

    Args:
        config: the search.
        images: from `prepare_images`.
        context: how processes start.
        wall_seconds: duration of the search, all its starts together.
    """
    record = read_search(config.folder)
    best = record.best
    if best is None:
        raise no_best_trial(record)
    if record.damaged:
        say(f"{damaged_files(record)}, and left out of the report", flush=True)
    settings = {name: value for name, value in record.config.items() if name not in ("asked", "fingerprint")}
    settings["wall_seconds"] = wall_seconds
    final = None
    say(_trials(record, wall_seconds), flush=True)
    say(f"best on validation: {_best(best, images.counts['validation'])}", flush=True)
    if config.retrain:
        settings["baseline"] = _baseline(config, images, context)
        say(_compared(record, settings["baseline"]), flush=True)
        final = _test(config, record, best, images, context)
        low, high = final["accuracy_interval"]
        say(
            f"trained on train and validation images, {final['epochs']} epochs: test accuracy "
            f"{final['accuracy']:.1%} ({final['correct']} of {final['images']}; 95 % interval {low:.1%} to "
            f"{high:.1%})",
            flush=True,
        )
    page = render_search_report(dataclasses.replace(record, config=settings), final=final)
    write_text(config.folder / REPORT, page)
    say(f"report: {config.folder / REPORT}", flush=True)
    say(f"to train it: keras-vit train --config {config.folder / 'best.json'}", flush=True)


def _trials(record: SearchRecord, wall_seconds: float) -> str:
    failed = sum(trial.status == "FAILED" for trial in record.trials)
    fit = sum(trial.seconds or 0.0 for trial in record.trials)
    return (
        f"{len(record.completed)} trials, {failed} failed: {minutes(wall_seconds)}, {minutes(fit)} of it in "
        "fit"
    )


def _best(best: TrialRecord, count: int) -> str:
    names = [
        *("depth", "num_heads", "dim", "patch_size", "mlp_ratio", "stem"),
        *("layer_decay", "unfrozen_share", "lora_rank", "batch_size"),
    ]
    if "model" not in best.values:
        names = names[1:]  # the weights decide the depth
    values = ", ".join(f"{name} {best.values[name]}" for name in names if name in best.values)
    return (
        f"{best.score:.1%} of {count} images, trial {best.trial_id}, {best.epochs} epochs: {values}, "
        f"learning_rate {best.values['learning_rate']:.2g}"
    )


def _compared(record: SearchRecord, baseline: dict[str, Any]) -> str:
    name, score, epochs = (baseline[key] for key in ("name", "score", "epochs"))
    best = record.best
    if best is not None and best.score is not None and best.score > score:
        verdict = "the best beats it" + (f" after {best.epochs}" if best.epochs < epochs else "")
    elif any(trial.epochs == epochs for trial in record.completed):
        verdict = "the best does not beat it"
    else:
        verdict = "no trial was trained as long, so they cannot be compared"
    return f"{name}, {epochs} epochs: {score:.1%}; {verdict}"


def _baseline(config: SearchConfig, images: Images, context: Context) -> dict[str, Any]:
    """Trains the default point of the space as long as the longest trial, once per search."""
    file = config.folder / BASELINE
    if not file.is_file():
        job = Job(config, images, stop_at=None)
        found = children.call(context, train_default, job, log=logs(config.folder) / "baseline.log")
        write_json(file, {"name": _name_of_default(config), **found})
    found = read_json(file)
    try:
        check_plain(Baseline, found)
    except InputError as error:
        raise InputError(
            f"{file} is damaged ({str(error).rstrip('.')}): remove it to make it again."
        ) from error
    return found


def _name_of_default(config: SearchConfig) -> str:
    """The name of the default point: that of a size if it is one, such as defect-conv/4."""
    point = train_config_at(config.search_space().default_point(), config.train_config)
    if config.init != NONE:
        standard = dataclasses.replace(config.base_recipe, epochs=point.recipe.epochs)
        changes = RECIPE_CHANGES.get(config.recipe or "", {})
        same = point.recipe == standard and {"drop_path_rate": 0.0, **changes} == point.changes
        return f"the recipe {config.recipe}" if same else "the default point of the space"
    if point.changes:
        return "the default point of the space"
    return point.size


def _test(
    config: SearchConfig, record: SearchRecord, best: TrialRecord, images: Images, context: Context
) -> dict[str, Any]:
    """Trains the best point on train and validation images, and tests it: the one use of the test images."""
    run = dataclasses.replace(best_config(record), merge_validation=True)
    folder = record.folder / f"best-{best.trial_id}"
    if not folder.is_dir():
        run = dataclasses.replace(run, out=folder, resume=partial_of(folder).is_dir())
        children.call(context, train_run, run, images.record, log=logs(config.folder) / "best.log")
    return _as_final(folder)


def _as_final(folder: Path) -> dict[str, Any]:
    metrics = load_run(folder).metrics["last"]
    names = ("accuracy", "accuracy_interval", "correct", "images")
    return {
        **{name: metrics[name] for name in names},
        "epochs": metrics["epoch"],
        "trained_on": "train + validation",
        "run": folder.name,
    }
