"""The folder of a run while it trains, and what may be there already."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_vit import files
from keras_vit.data.origin import find_root
from keras_vit.errors import InputError
from keras_vit.files import UNFINISHED, is_taken, is_work_name, partial_of
from keras_vit.locks import lock_beside, locked
from keras_vit.runs import folder as run_folder
from keras_vit.runs.images import IMAGES, ImageRecord, read_record
from keras_vit.runs.out_of_fold import OUT_OF_FOLD
from keras_vit.sealed import FILES, check_file
from keras_vit.text import say
from keras_vit.training.checkpoint import BEST, CHECKPOINT
from keras_vit.training.config import AUTO, WHERE, TrainConfig, from_dict
from keras_vit.training.options import differences
from keras_vit.training.spread import TABLE

if TYPE_CHECKING:
    from keras_vit.distribution import Distribution

OURS = {
    *(run_folder.CONFIG, IMAGES, TABLE, CHECKPOINT, BEST, "tensorboard"),
    *(run_folder.MODEL, f"new-{run_folder.MODEL}", run_folder.HISTORY, run_folder.METRICS, run_folder.REPORT),
    *(run_folder.REJECTION, run_folder.ADAPTER, OUT_OF_FOLD),
}
"""What a run writes into its folder: a folder that holds anything else is never removed."""


@contextlib.contextmanager
def owned(folder: Path, distribution: "Distribution") -> Iterator[bool]:
    """Keeps the folder of a run, and the one beside it in which it is made, for this command alone.

    Args:
        folder: of the finished run.
        distribution: the processes of the command; the chief takes the lock for all.

    Yields:
        Whether no other command can be at work there: `False` on a disk without locks.

    Raises:
        InputError: another command is at work there, or the folder cannot be made.
    """
    with contextlib.ExitStack() as stack:

        def take() -> bool:
            busy = f"Another command is at work on the run {folder}"
            lock = stack.enter_context(locked(lock_beside(folder), busy))
            partial = partial_of(folder)
            if not _foreign(partial):
                lock.clear(partial)
            return lock.is_held

        yield distribution.from_chief(take)


def begin_or_resume(config: TrainConfig, folder: Path, restarted: bool, is_owned: bool = True) -> dict:
    """What is to be done at the folder of a run.

    A run without a finished epoch has nothing to lose, so it begins anew, with `resume` or without.

    Args:
        config: as asked for now.
        folder: of the finished run.
        restarted: whether a run that was cut off is continued without `resume`, as the launchers of several
            processes need, which start the same command again.
        is_owned: as `owned` yields it.

    Returns:
        `{"finished": config.json}` if there is nothing left to do, otherwise `{"unfinished": config.json}`,
        with `None` for settings as asked for now, and `"anew": True` where a dead run is to be removed.

    Raises:
        InputError: the folder holds something else, or there is nothing to resume.
    """
    partial = partial_of(folder)
    resume = config.resume or (restarted and (partial / run_folder.CONFIG).is_file())
    if resume and folder.is_dir() and is_taken(folder):
        return {"finished": run_folder.load_run(folder).config}
    _check_folder(folder)
    if os.path.lexists(partial) and (partial.is_symlink() or not partial.is_dir()):
        raise InputError(f"{partial} is not a folder, and the run is made in it: choose another --out.")
    if not partial.is_dir():
        if config.resume:
            raise InputError(f"There is no cut-off run {partial} to resume: leave out --resume to begin one.")
        return {"unfinished": None}
    if is_complete(partial) and resume:
        return {"finished": publish(partial, folder)}
    if not is_owned or is_complete(partial) or has_finished_epoch(partial):
        if not (partial / run_folder.CONFIG).is_file():
            raise InputError(
                f"{partial} has no {run_folder.CONFIG}, so there is nothing to resume: "
                f"{_begin_again(partial)}."
            )
        unfinished = _read_unfinished(partial)
        if not resume:
            _read_settings(unfinished, partial)  # else --resume would be refused too
            raise InputError(
                f"{partial} holds a run that was cut off: add --resume to continue it, or remove the folder."
            )
        return {"unfinished": unfinished}
    if others := _foreign(partial):
        raise InputError(
            f"{partial} holds other things ({others[0]}), and a run is made in it: choose another --out."
        )
    stored = _whole_settings(partial) if resume else None
    if stored is None and config.resume and config.data is None:
        raise InputError(
            f"{partial} holds no finished epoch and no settings that can be read, so which images it was to "
            "be trained on is not known: give --data again, or leave out --resume to train on the drawn "
            "defects."
        )
    settings = "those of this command" if stored is None else "those it was begun with"
    say(f"{partial} holds no finished epoch: the run begins anew; its settings are {settings}.")
    return {"unfinished": stored, "anew": True}


def _check_folder(folder: Path) -> None:
    if folder.name.endswith(UNFINISHED):
        raise InputError(
            f"{folder} is a name for runs that are not finished: choose an --out without {UNFINISHED}."
        )
    if is_taken(folder):
        raise InputError(f"{folder} exists already: choose another --out, or remove it.")
    if folder.is_dir() and folder.samefile("."):
        raise InputError(
            f"{folder} exists already and is the working directory, which a finished run cannot replace: "
            "give a folder in it, such as --out run."
        )
    if os.path.ismount(folder):
        raise InputError(
            f"{folder} is a mount point, which a finished run cannot replace: give a folder in it, such as "
            f"--out {folder / 'run'}."
        )


def has_finished_epoch(partial: Path) -> bool:
    """Whether a run that was cut off has something to continue from."""
    return (partial / CHECKPOINT).is_file()


def is_complete(partial: Path) -> bool:
    """Whether a run was cut off after its last file, the report, and before it got its name."""
    return (partial / run_folder.REPORT).is_file() and not has_finished_epoch(partial)


def _foreign(partial: Path) -> list[str]:
    """What a folder holds that no run has written there."""
    if partial.is_symlink() or not partial.is_dir():
        return [str(partial)]
    return sorted(
        path.name for path in partial.iterdir() if path.name not in OURS and not is_work_name(path.name)
    )


def make_unfinished(partial: Path, unfinished: dict | None, anew: bool = False) -> bool:
    """Makes the folder of a run while it trains.

    Args:
        partial: the folder.
        unfinished, anew: as `begin_or_resume` returns them.

    Returns:
        Whether nothing in it is worth keeping if this run fails before its first epoch has ended.

    Raises:
        InputError: the folder cannot be made, or another command has made it on a disk without locks.
    """
    if unfinished is not None and not anew:
        return False
    if anew:
        shutil.rmtree(partial)
    files.make_folder(partial.parent)
    try:
        partial.mkdir()
    except FileExistsError as error:
        raise InputError(f"{partial} was made in the meantime: choose another --out.") from error
    except OSError as error:
        raise InputError(f"{partial} cannot be made ({error.strerror}): choose another --out.") from error
    return True


def publish(partial: Path, folder: Path) -> dict:
    """Gives a finished run its own folder; its config.json.

    Raises:
        InputError: the run is damaged, or its folder was made by something else.
    """
    config = run_folder.load_run(partial).config
    for leftover in (partial / BEST, *partial.glob("*.new")):
        leftover.unlink(missing_ok=True)
    try:
        os.replace(partial, folder)
    except OSError as error:
        if not folder.exists():
            raise
        raise InputError(
            f"{folder} was made while the run was trained, which is whole in {partial}: move {folder} away, "
            "and add --resume."
        ) from error
    return config


def _whole_settings(partial: Path) -> dict | None:
    """The config.json of a run that has not finished an epoch; `None` if the run was killed before it."""
    try:
        unfinished = _read_unfinished(partial)
        _read_settings(unfinished, partial)
    except InputError:
        return None
    return unfinished


def _read_unfinished(partial: Path) -> dict:
    path, fix = partial / run_folder.CONFIG, _begin_again(partial)
    found = files.read_json(path, fix=fix)
    run_folder.check_config(path, found, fix)
    return found


def _begin_again(partial: Path) -> str:
    return f"remove {partial}, and leave out --resume"


def stored_config(unfinished: dict, config: TrainConfig) -> TrainConfig:
    """The settings that a run was started with, after a check that nothing else is asked for now.

    Args:
        unfinished: its config.json.
        config: as asked for now; where the run is made is taken from it.

    Raises:
        InputError: the file is damaged, or an option differs.
    """
    where = {name: getattr(config, name) for name in WHERE}
    stored = _read_settings(unfinished, partial_of(Path(str(config.out))), **{**where, "resume": True})
    wanted = asked_for(config)
    if IMAGES in unfinished.get(FILES, {}):
        # The images may have moved, since they are known by their content.
        moved = config.data if "data" in wanted else find_root(unfinished, Path(str(config.out)))
        stored = dataclasses.replace(stored, data=moved)
    check_unchanged(config, stored, Path(str(config.out)))
    return stored


def asked_for(config: TrainConfig) -> dict[str, Any]:
    """The options of a command that are not at their defaults, and that it does not leave to the images."""
    return {name: value for name, value in differences(config, TrainConfig()).items() if value != AUTO}


def check_unchanged(config: TrainConfig, stored: TrainConfig, folder: Path) -> None:
    """Raises InputError if other settings are asked for now than a run was started with.

    Args:
        config: as asked for now; what is at its default may be another one in the run.
        stored: of the run.
        folder: of the run, for the message.
    """
    wanted = asked_for(config)
    for name in differences(config, stored).keys() & wanted.keys():
        raise InputError(
            f"{folder} was started with another {name} than {wanted[name]}: leave that option out to "
            "resume it, or begin a new run with another --out."
        )


def _read_settings(unfinished: dict, partial: Path, **where: Any) -> TrainConfig:
    try:
        if not {"model", "recipe"} <= unfinished["train"].keys():
            raise InputError("it has no model or no recipe.")
        return from_dict(unfinished["train"], **where)
    except (InputError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{partial / run_folder.CONFIG} is damaged: {_begin_again(partial)}.") from error


def images_of(unfinished: dict | None, partial: Path, distribution: "Distribution") -> ImageRecord | None:
    """What a run that was cut off remembers of its images, in every process; the chief reads it.

    Args:
        unfinished: its config.json; `None` for a new run.
        partial: its folder.
        distribution: of the processes.

    Returns:
        `None` for a new run, or one of an earlier version.

    Raises:
        InputError: the file is missing or damaged.
    """
    if unfinished is None:
        return None
    names = unfinished["data"]["class_names"]
    several = unfinished["data"].get("several_labels", False)

    def read() -> list | None:
        if not any((partial / name).exists() for name in (IMAGES, CHECKPOINT)):
            return None  # killed before its first epoch was kept: the split is drawn again
        check_file(partial / IMAGES, unfinished, _begin_again(partial))
        record = read_record(partial, names, several)
        return None if record is None else list(record.rows)

    rows = distribution.from_chief(read)
    return None if rows is None else ImageRecord(rows, tuple(names), several)


def check_same_data(unfinished: dict, described: dict, partial: Path) -> list[str]:
    """Checks what a run was started with beside its settings: the published weights, and an old run's images.

    The images of a new run are those of its images.csv.

    Returns:
        What cannot be checked, one line each.

    Raises:
        InputError: something has changed.
    """
    before, now = (record.get("weights") or {} for record in (unfinished, described))
    if before.get("sha256") != now.get("sha256"):
        raise InputError(
            f"{now.get('source')} holds other weights than when {partial} was started: restore them to "
            "resume it, or begin a new run with another --out."
        )
    if (partial / IMAGES).is_file() or not (partial / CHECKPOINT).is_file():
        return []
    names = ("class_names", "counts")
    if any(unfinished["data"].get(name) != described["data"][name] for name in names):
        raise InputError(
            f"{described['data']['source']} has changed since {partial} was started: restore the images to "
            "resume it, or begin a new run with another --out."
        )
    return [f"{partial} has no {IMAGES}: whether its images are the same as before cannot be checked."]
