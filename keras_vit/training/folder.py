"""The folder of a run while it trains, and what may be there already."""

from pathlib import Path

from keras_vit import files
from keras_vit.errors import InputError
from keras_vit.files import partial_of
from keras_vit.runs import folder as run_folder
from keras_vit.training.config import WHERE, TrainConfig, from_dict
from keras_vit.training.options import differences


def begin_or_resume(config: TrainConfig, folder: Path, restarted: bool) -> dict:
    """What is to be done at the folder of a run.

    Args:
        config: as asked for now.
        folder: of the finished run.
        restarted: whether a run that was cut off is continued without `resume`, as the launchers of several
            processes need, which start the same command again.

    Returns:
        `{"finished": config.json}` if there is nothing left to do, otherwise `{"unfinished": config.json}`,
        with `None` for a new run.

    Raises:
        InputError: the folder holds something else, or there is nothing to resume.
    """
    partial = partial_of(folder)
    was_cut_off = (partial / run_folder.CONFIG).is_file()
    resume = config.resume or (restarted and was_cut_off)
    if resume and folder.is_dir():
        return {"finished": run_folder.load_run(folder).config}
    _check_folder(folder, partial, resume)
    return {"unfinished": _read_unfinished(partial) if resume else None}


def _check_folder(folder: Path, partial: Path, resume: bool) -> None:
    if folder.exists():
        raise InputError(f"{folder} exists already: choose another --out, or remove it.")
    if partial.is_dir() and not resume:
        raise InputError(
            f"{partial} holds a run that was cut off: add --resume to continue it, or remove the folder."
        )
    if resume and not partial.is_dir():
        raise InputError(f"There is no cut-off run {partial} to resume: leave out --resume to begin one.")
    if resume and not (partial / run_folder.CONFIG).is_file():
        raise InputError(
            f"{partial} has no {run_folder.CONFIG}, so there is nothing to resume: {_begin_again(partial)}."
        )


def _read_unfinished(partial: Path) -> dict:
    return files.read_json(partial / run_folder.CONFIG, fix=_begin_again(partial))


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
    try:
        if not {"model", "recipe"} <= unfinished["train"].keys():
            raise InputError("it has no model or no recipe.")
        stored = from_dict(unfinished["train"], **{**where, "resume": True})
    except (InputError, KeyError, TypeError, AttributeError) as error:
        partial = partial_of(Path(str(config.out)))
        raise InputError(f"{partial / run_folder.CONFIG} is damaged: {_begin_again(partial)}.") from error
    wanted = differences(config, TrainConfig())
    for name in differences(config, stored).keys() & wanted.keys():
        raise InputError(
            f"{config.out} was started with another {name} than {wanted[name]}: leave that option out to "
            "resume it, or begin a new run with another --out."
        )
    return stored


def check_same_data(unfinished: dict, described: dict, partial: Path) -> None:
    """Raises InputError if the images or the published weights are not those that a run was started with."""
    if unfinished.get("data") != described["data"]:
        raise InputError(
            f"{described['data']['source']} has changed since {partial} was started: restore the images to "
            "resume it, or begin a new run with another --out."
        )
    before, now = (record.get("weights") or {} for record in (unfinished, described))
    if before.get("sha256") != now.get("sha256"):
        raise InputError(
            f"{now.get('source')} holds other weights than when {partial} was started: restore them to "
            "resume it, or begin a new run with another --out."
        )
