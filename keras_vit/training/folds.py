"""Several runs of the same settings in one folder, one after the other: the folds of a data set, or seeds."""

import contextlib
import dataclasses
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from keras_vit import files
from keras_vit.data.folds import fold_of_each
from keras_vit.data.image_set import ImageSet
from keras_vit.data.origin import find_root, fixes_to_record, recorded_fixes, roots
from keras_vit.data.sources import load_image_set
from keras_vit.distribution.cluster import Cluster, read_cluster
from keras_vit.errors import InputError
from keras_vit.evaluation.repeats import judge_repeats
from keras_vit.files import is_taken, make_folder, partial_of, remove_made
from keras_vit.locks import lock_beside, locked
from keras_vit.report.ensemble import render_ensemble
from keras_vit.runs.ensemble import Ensemble, decide_by_folds, load_ensemble, read_settings
from keras_vit.runs.folder import CONFIG, ENSEMBLE, METRICS, REPORT, Run, load_run
from keras_vit.runs.out_of_fold import OUT_OF_FOLD, read_answers
from keras_vit.runs.wanted import wanted_of
from keras_vit.sealed import check_file, seal
from keras_vit.text import say
from keras_vit.training.config import WHERE, TrainConfig, default_folder, from_dict, to_dict
from keras_vit.training.folder import check_unchanged, has_finished_epoch, is_complete
from keras_vit.training.options import command_of
from keras_vit.training.run import train_on
from keras_vit.training.start import choose_weights

MEMBER = re.compile(r"\.?(fold|seed)-\d+(\.partial|\.lock)?")
"""The names of what runs are made in; a folder with anything else is not one for several runs."""

FIX = "restore the files, or train again with another --out"


@dataclass(frozen=True)
class Member:
    """One of several runs.

    Args:
        folder: of the finished run.
        config: its settings.
    """

    folder: Path
    config: TrainConfig


def train_several(config: TrainConfig) -> Ensemble:
    """Trains the folds, or the seeds, that the settings ask for, and evaluates them together.

    Finished runs are kept, one that was cut off is continued, and the others begin.

    Args:
        config: with `folds` or `seeds`; or with `resume` and the folder of runs that were begun.

    Raises:
        InputError: an argument or an image cannot be used.
    """
    _refuse_processes(config)
    folder = Path(str(config.out or default_folder(config)))
    with locked(lock_beside(folder), f"Another command is at work on the runs in {folder}"):
        config, stored = _begin_or_resume(dataclasses.replace(config, out=folder), folder)
        if stored is not None and stored.get("runs") is not None:
            return load_ensemble(folder)
        config = choose_weights(config)
        image_set = load_image_set(config.data, **config.of_tables | recorded_fixes(stored))
        _check_images(config, image_set, stored, folder)
        with _made(folder) as continue_note:
            if stored is None:
                files.write_json(folder / ENSEMBLE, _settings(config, image_set))
            members = members_of(config, folder)
            runs = []
            for number, member in enumerate(members, 1):
                say(f"{member.folder.name}, {number} of {len(members)}: {member.folder}")
                with continue_note():
                    runs.append(_train(member, image_set, folder))
            _finish(config, image_set, runs, folder)
    return load_ensemble(folder)


def members_of(config: TrainConfig, folder: Path) -> list[Member]:
    """The runs that the settings ask for, in order."""
    if config.folds is not None:
        named: list[tuple[str, dict[str, Any]]] = [
            (f"fold-{i}", {"fold": i}) for i in range(1, config.folds + 1)
        ]
    else:
        named = [(f"seed-{i}", {"seeds": None, "seed": i}) for i in range(config.seeds or 0)]
    return [
        Member(folder / name, dataclasses.replace(config, out=folder / name, resume=False, **changes))
        for name, changes in named
    ]


def _refuse_processes(config: TrainConfig) -> None:
    """Raises InputError where a launcher has started several processes, which would train a run together."""
    cluster: Cluster = read_cluster(keras.backend.backend())
    if cluster.num_processes > 1:
        first = "--folds 5 --fold 1" if config.seeds is None else "--seed 0"
        raise InputError(
            f"Several runs are trained by one process, and {cluster.announced_by} announces "
            f"{cluster.num_processes}: train each by a command of its own ({first}, ...), or start one "
            "process."
        )


def _begin_or_resume(config: TrainConfig, folder: Path) -> tuple[TrainConfig, dict[str, Any] | None]:
    """The settings of the runs, and the ensemble.json of those that were begun.

    Raises:
        InputError: the folder holds something else, or there is nothing to resume.
    """
    if (folder / ENSEMBLE).is_file():
        stored = read_settings(folder)
        if not config.resume:
            what = (
                "were cut off: add --resume to continue them"
                if stored.get("runs") is None
                else "are finished"
            )
            raise InputError(f"{folder} holds runs that {what}, or choose another --out.")
        found = _stored_config(stored, config, folder)
        return found, stored
    begun = (
        folder.is_dir() and is_taken(folder) and all(MEMBER.fullmatch(path.name) for path in folder.iterdir())
    )
    if config.resume and not begun:
        raise InputError(
            f"There are no cut-off runs in {folder} to resume: leave out --resume to begin them."
        )
    if is_taken(folder) and not (begun and config.resume):
        more = " (--resume takes over the runs in it)" if begun else ""
        raise InputError(f"{folder} exists already: choose another --out, or remove it{more}.")
    return config, None


def _stored_config(stored: dict[str, Any], config: TrainConfig, folder: Path) -> TrainConfig:
    where = {name: getattr(config, name) for name in WHERE}
    try:
        found = from_dict(stored["train"], **where)
        if not found.is_several:
            raise InputError("it has neither folds nor seeds.")
    except InputError as error:
        raise InputError(f"{folder / ENSEMBLE} is damaged ({str(error).rstrip('.')}): {FIX}.") from error
    moved = config.data if config.data is not None else find_root(stored, folder)
    found = dataclasses.replace(found, data=moved)
    check_unchanged(config, found, folder)
    return found


def _check_images(
    config: TrainConfig, image_set: ImageSet, stored: dict[str, Any] | None, folder: Path
) -> None:
    """Raises InputError where the images cannot be cut into folds, or are not those of the runs so far."""
    if config.folds is not None:
        fold_of_each(image_set, config.folds, config.seed)
    if stored is not None and stored["fingerprint"] != image_set.fingerprint():
        raise InputError(
            f"The images in {image_set.source} have changed since the runs in {folder} were begun: restore "
            "them to continue, or begin anew with another --out."
        )


def _settings(config: TrainConfig, image_set: ImageSet) -> dict[str, Any]:
    """What ensemble.json holds from the beginning."""
    assert config.out is not None
    return {
        "kind": "seeds" if config.folds is None else "folds",
        "count": config.folds or config.seeds,
        "command": command_of(config),
        "fingerprint": image_set.fingerprint(),
        "data": {
            "source": image_set.source,
            **roots(config.data, config.out),
            **fixes_to_record(image_set),
        },
        "train": to_dict(config),
    }


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[Any]:
    """Makes the folder, and removes it at an error if no run was kept in it.

    Yields:
        A context for the training of a run, which adds to an error how the runs continue.
    """

    @contextlib.contextmanager
    def noted() -> Iterator[None]:
        try:
            yield
        except InputError as error:
            if any(path.name != ENSEMBLE for path in folder.iterdir()):
                error.add_note(
                    f"The runs that are finished are kept; the others continue with: keras-vit train --out "
                    f"{shlex.quote(str(folder))} --resume"
                )
            raise

    made = make_folder(folder)
    try:
        yield noted
    except BaseException:
        if {path.name for path in folder.iterdir()} <= {ENSEMBLE}:
            (folder / ENSEMBLE).unlink(missing_ok=True)
            remove_made(made)
        raise


def _train(member: Member, image_set: ImageSet, folder: Path) -> Run:
    """The run, which is finished already, continued or begun."""
    if member.folder.is_dir() and is_taken(member.folder):
        run = load_run(member.folder)
        try:
            own = from_dict(run.config["train"])
        except InputError as error:
            raise InputError(f"{member.folder / CONFIG} is damaged: {FIX}.") from error
        check_unchanged(dataclasses.replace(member.config, data=own.data), own, member.folder)
        say(f"{member.folder} is finished already")
        return run
    partial = partial_of(member.folder)
    resume = has_finished_epoch(partial) or is_complete(partial)
    return train_on(dataclasses.replace(member.config, resume=resume), None, image_set, folder)


def _finish(config: TrainConfig, image_set: ImageSet, runs: list[Run], folder: Path) -> None:
    """Evaluates the runs together; ensemble.json, which says that they are finished, is written last."""
    names = runs[0].class_names
    for run in runs:
        if run.class_names != names:
            raise InputError(f"{run.path} has other classes than {runs[0].path}: {FIX}.")
    kind: Literal["folds", "seeds"] = "seeds" if config.folds is None else "folds"
    pooled, decision = None, dict[str, Any]()
    if kind == "folds":
        rows, *pooled = _out_of_fold(runs)
        files.write_csv(folder / OUT_OF_FOLD, rows)
        wanted = wanted_of(config.min_recall, config.costs, names)
        decision = decide_by_folds(wanted, names, pooled[1], pooled[0])
    metrics = judge_repeats(
        kind,
        {run.path.name: run.metrics for run in runs},
        [run.config["data"]["counts"] for run in runs],
        None if pooled is None else (pooled[0], pooled[1], pooled[2]),
    )
    metrics |= decision
    files.write_json(folder / METRICS, metrics)
    whole = {
        **_settings(config, image_set),
        "class_names": list(names),
        "runs": [run.path.name for run in runs],
        "seconds": round(sum(run.config["seconds"] for run in runs), 1),
    }
    for name in ("image_shape", "model", "backend", "device", "versions"):
        whole[name] = runs[0].config[name]
    whole = seal(whole, folder, [METRICS, OUT_OF_FOLD, *(f"{run.path.name}/{CONFIG}" for run in runs)])
    files.write_text(folder / REPORT, render_ensemble(config=whole, metrics=metrics))
    files.write_json(folder / ENSEMBLE, whole)


def _out_of_fold(runs: list[Run]) -> tuple[list[dict[str, str]], np.ndarray, np.ndarray, np.ndarray]:
    """The answers of all folds, each about the images that it is tested on.

    Returns:
        The rows, the labels, the probabilities, and what each fold names by its own rule, or by its own
        thresholds: see `judge_repeats`.

    Raises:
        InputError: an image is tested twice or never, so the folds are not of the same images.
    """
    rows, labels, probabilities, named = [], [], [], []
    for run in runs:
        check_file(run.path / OUT_OF_FOLD, run.config, FIX)
        found = read_answers(run.path / OUT_OF_FOLD, run.class_names, run.several)
        rows += found[0]
        labels.append(found[1])
        probabilities.append(found[2])
        named.append(_named(run, found[2]))
    tested = sorted(row["path"] for row in rows)
    for run in runs:
        assert run.images is not None
        own = sorted(run.images.rows[i]["path"] for i in run.images.of_part("train", "validation", "test"))
        if own != tested:
            raise InputError(
                f"{run.path} was trained on other images than the folds are tested on: remove it, and add "
                "--resume to train it again."
            )
    return rows, np.concatenate(labels), np.concatenate(probabilities), np.concatenate(named)


def _named(run: Run, probabilities: np.ndarray) -> np.ndarray:
    """The classes that a run names, int (n,); with several labels per image, bool (n, labels)."""
    if run.thresholds is not None:
        return probabilities >= run.thresholds
    return probabilities.argmax(axis=1) if run.rule is None else run.rule.decide(probabilities)
