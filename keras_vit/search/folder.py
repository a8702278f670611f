"""The folder of a search: what it was begun as, and that one command at a time works in it."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from keras_vit import files
from keras_vit.errors import InputError
from keras_vit.files import read_json, write_json
from keras_vit.process.command import repeat_command
from keras_vit.process.versions import installed_versions
from keras_vit.search.config import SearchConfig, describe_search, from_dict, to_dict
from keras_vit.search.record import SEARCH, read_asked

WALL = "wall_seconds.json"
PACKAGES = ("keras", "keras-tuner", "tensorflow", "jax", "torch", "numpy", "scikit-learn")


def logs(folder: Path) -> Path:
    """The folder for what processes print."""
    path = folder / "logs"
    path.mkdir(exist_ok=True)
    return path


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a search's folder, which is made if it does not exist, for this process alone.

    An `InputError` before the search has begun leaves the disk as it was.

    Raises:
        InputError: the folder cannot be made or written to, or another process has it.
    """
    with files.locked(folder, f"Another search is running in {folder}") as made:
        has_logs = (folder / "logs").exists()
        try:
            yield
        except InputError:
            if not (folder / SEARCH).is_file():
                if not has_logs:
                    shutil.rmtree(folder / "logs", ignore_errors=True)
                files.remove_made(made)
            raise


def begin_or_go_on(config: SearchConfig) -> SearchConfig:
    """The search that is in the folder, or this one, written down there.

    Raises:
        InputError: another search, or something else, is there.
    """
    file = config.folder / SEARCH
    if file.is_file():
        if not config.resume:
            raise InputError(
                f"{config.folder} holds a search: leave out --no-resume to go on, or choose another --out."
            )
        return from_dict(read_asked(file)["asked"], config)
    others = [one.name for one in config.folder.iterdir() if one.name not in ("lock", "logs")]
    if others:
        raise InputError(f"{config.folder} holds other things ({others[0]}): choose another --out.")
    return config


def add_wall_seconds(folder: Path, begin: float) -> float:
    """Adds the time since `begin`, of `time.monotonic()`, to what the search has taken; returns the time."""
    now = time.monotonic()
    write_json(folder / WALL, round(wall_seconds(folder) + now - begin, 2))
    return now


def wall_seconds(folder: Path) -> float:
    """What all starts of the search have taken, up to when something last changed."""
    return read_json(folder / WALL) if (folder / WALL).is_file() else 0.0


def remember_images(config: SearchConfig, images) -> None:
    """Writes search.json, or makes sure that images and backend are those that it was written for.

    Raises:
        InputError: they have changed, or a model for so many classes is over the budget.
    """
    file = config.folder / SEARCH
    if file.is_file():
        found = read_asked(file)
        if found["backend"] != images.backend:
            raise InputError(
                f"{config.folder} was begun on {found['backend']}, and its trials go on there: set "
                f"KERAS_BACKEND={found['backend']}."
            )
        if found["fingerprint"] != images.fingerprint:
            raise InputError(
                f"{images.image_set.source} has changed since {config.folder} was begun: bring the images "
                "back, or begin another search with another --out."
            )
        return
    space, classes = config.search_space(), len(images.image_set.class_names)
    excess = space.excess(space.default_point(), config.image_shape, classes)
    if excess:
        raise InputError(
            f"The default point of the space makes a model of {excess}: raise the budget, or freeze smaller "
            "values, such as --freeze depth=2 dim=32."
        )
    write_json(
        file,
        {
            **describe_search(config),
            "asked": to_dict(config),
            "data": {
                "source": images.image_set.source,
                "class_names": list(images.image_set.class_names),
                "counts": images.counts,
            },
            "validation_images": images.counts["validation"],
            "fingerprint": images.fingerprint,
            "backend": images.backend,
            "versions": installed_versions(*PACKAGES),
            "command": command_of(config),
        },
    )


def command_of(config: SearchConfig) -> str:
    """The shell command that repeats a search."""
    options = {**to_dict(config), "out": config.folder}
    return repeat_command(["keras-vit", "search"], options, to_dict(SearchConfig()))
