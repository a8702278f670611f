"""Where a run stands on the disk while it trains, and what may be there already."""

from pathlib import Path

from keras_vit import files
from keras_vit.errors import InputError
from keras_vit.files import partial_of
from keras_vit.runs import folder as folder_of_run
from keras_vit.training.config import DEVICES, TrainConfig, differences, from_dict


def begin_or_resume(config: TrainConfig, folder: Path, restarted: bool) -> dict:
    """What is to be done at the folder of a run.

    Args:
        config: as asked for now.
        folder: of the finished run.
        restarted: whether a run that was cut off is taken up without being asked, as the launchers of several
            processes need, which start the same command again.

    Returns:
        `{"finished": config.json}` where there is nothing left to do, else `{"begun": config.json}`, `None`
        in place of it for a new run.

    Raises:
        InputError: something else is there, or nothing to resume.
    """
    partial = partial_of(folder)
    begun = (partial / folder_of_run.CONFIG).is_file()
    resume = config.resume or (restarted and begun)
    if resume and folder.is_dir():
        return {"finished": folder_of_run.load_run(folder).config}
    _check_place(folder, partial, resume)
    return {"begun": files.read_json(partial / folder_of_run.CONFIG) if resume else None}


def _check_place(folder, partial, resume):
    if folder.exists():
        raise InputError(f"{folder} is there already: choose another --out, or remove it.")
    if partial.is_dir() and not resume:
        raise InputError(
            f"{partial} holds a run that was cut off: add --resume to go on with it, or remove it."
        )
    if resume and not partial.is_dir():
        raise InputError(f"There is no cut-off run {partial} to resume: leave out --resume to begin one.")
    if resume and not (partial / folder_of_run.CONFIG).is_file():
        raise InputError(
            f"{partial} has no {folder_of_run.CONFIG}, so nothing to resume: remove it and omit --resume."
        )


def stored_config(begun: dict, config: TrainConfig) -> TrainConfig:
    """The config a run was begun with, after making sure that nothing else is asked for now.

    Args:
        begun: its config.json.
        config: as asked for now; where it runs is taken from this one.

    Raises:
        InputError: the file is damaged, or an option differs.
    """
    here = {name: getattr(config, name) for name in ("out", *DEVICES)}
    try:
        stored = from_dict(begun["train"], resume=True, **here)
    except (KeyError, TypeError) as error:
        partial = partial_of(Path(str(config.out)))
        raise InputError(
            f"{partial / folder_of_run.CONFIG} is damaged: remove {partial}, and leave out --resume."
        ) from error
    asked = dict(differences(config, stored))
    wanted = dict(differences(config, TrainConfig()))
    for name in asked.keys() & wanted.keys():
        raise InputError(
            f"{config.out} was begun with another {name} than {wanted[name]}: leave that option out to "
            "resume it, or begin a new run with another --out."
        )
    return stored


def check_same_data(begun: dict, written: dict, partial: Path) -> None:
    """Raises InputError where the images are others than those a run was begun with."""
    if begun.get("data") != written["data"]:
        raise InputError(
            f"{written['data']['source']} has changed since {partial} was begun: bring the images back to "
            "resume it, or begin a new run with another --out."
        )
