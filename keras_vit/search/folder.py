"""The folder of a search: the settings that it was started with, its lock and its time."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from keras_vit import locks
from keras_vit.data.origin import fixes_to_record, roots
from keras_vit.errors import InputError
from keras_vit.files import read_json, write_json
from keras_vit.process.command import repeat_command
from keras_vit.process.versions import installed_versions
from keras_vit.runs.images import IMAGES
from keras_vit.sealed import seal
from keras_vit.search.config import INTERNAL, SearchConfig, describe_search, from_dict, to_dict
from keras_vit.search.results import SEARCH, read_settings
from keras_vit.search.schema import Seconds
from keras_vit.search.worker import Images
from keras_vit.training.config import NONE
from keras_vit.validation import check_plain

WALL = "wall_seconds.json"
LOCK = "lock"  # inside, not beside: the folder itself is worked in, and may be `.` in one that is not ours
PACKAGES = ("keras", "keras-tuner", "tensorflow", "jax", "torch", "numpy", "scikit-learn")


def logs(folder: Path) -> Path:
    """The folder for the output of the processes."""
    path = folder / "logs"
    path.mkdir(exist_ok=True)
    return path


@contextlib.contextmanager
def locked(folder: Path, is_shared: bool = False) -> Iterator[None]:
    """Keeps a search's folder, which is made if it does not exist, for this process alone.

    What an earlier process left that was killed is removed. An `InputError` before the search has begun
    leaves the disk as it was.

    Args:
        folder: of the search.
        is_shared: whether workers on other machines may be at work in it: their files stay.

    Raises:
        InputError: the folder cannot be made or written to, or another process has it.
    """
    with locks.locked(folder / LOCK, f"Another search is running in {folder}") as lock:
        if (folder / SEARCH).is_file():  # otherwise the folder may be of another program
            for below in (folder,) if is_shared else (folder, *folder.glob("trial_*")):
                lock.clear(below)
        has_logs = (folder / "logs").exists()
        try:
            yield
        except InputError:
            if not (folder / SEARCH).is_file() and not has_logs:
                shutil.rmtree(folder / "logs", ignore_errors=True)
            raise


def begin_or_continue(config: SearchConfig) -> SearchConfig:
    """The search that is in the folder, or this one if there is none.

    Raises:
        InputError: the folder holds another search, or something else.
    """
    file = config.folder / SEARCH
    if file.is_file():
        if not config.resume:
            raise InputError(
                f"{config.folder} holds a search: omit --no-resume to continue it, or choose another --out."
            )
        return from_dict(read_settings(file)["asked"], config)
    others = [one.name for one in config.folder.iterdir() if one.name not in (LOCK, "logs")]
    if others:
        raise InputError(f"{config.folder} holds other things ({others[0]}): choose another --out.")
    return config


def add_wall_seconds(folder: Path, begin: float) -> float:
    """Adds the time since `begin` to the duration of the search; both are times of `time.monotonic()`.

    Returns:
        The time now.
    """
    now = time.monotonic()
    write_json(folder / WALL, round(wall_seconds(folder) + now - begin, 2))
    return now


def wall_seconds(folder: Path) -> float:
    """Duration of all starts of the search together, up to when something last changed."""
    file = folder / WALL
    if not file.is_file():
        return 0.0
    seconds = read_json(file)
    try:
        check_plain(Seconds, seconds)
    except InputError as error:
        raise InputError(f"{file} is damaged ({error}): remove it to count from 0 again.") from error
    return seconds


def write_or_check_images(config: SearchConfig, images: Images) -> None:
    """Writes search.json, or checks that images and backend are those that it was written for.

    Raises:
        InputError: images or backend have changed, or a model for so many classes is over the budget.
    """
    file = config.folder / SEARCH
    if file.is_file():
        found = read_settings(file)
        if found["backend"] != images.backend:
            raise InputError(
                f"{config.folder} was started on {found['backend']}, and its trials continue there: set "
                f"KERAS_BACKEND={found['backend']}."
            )
        if found["fingerprint"] != images.fingerprint:
            raise InputError(
                f"{images.image_set.source} has changed since {config.folder} was started: bring the images "
                "back, or start another search with another --out."
            )
        return
    space, classes = config.search_space(), len(images.image_set.class_names)
    excess = space.excess(space.default_point(), config.image_shape, classes)
    if excess:
        raise InputError(
            f"The default point of the space makes a model of {excess}: raise the budget, or freeze smaller "
            "values, such as --freeze depth=2 dim=32."
        )
    names = []
    if images.record is not None:
        images.record.write(config.folder)
        names = [IMAGES]
    settings = {
        **describe_search(config),
        "asked": to_dict(config),
        "data": {
            "source": images.image_set.source,
            "class_names": list(images.image_set.class_names),
            "counts": images.counts,
            **roots(config.data, config.folder),
            **fixes_to_record(images.image_set),
        },
        "validation_images": images.counts["validation"],
        **({"weights": images.first.described} if config.init != NONE and images.first else {}),
        "fingerprint": images.fingerprint,
        "backend": images.backend,
        "versions": installed_versions(*PACKAGES),
        "command": command_of(config),
    }
    write_json(file, seal(settings, config.folder, names))


def command_of(config: SearchConfig) -> str:
    """The shell command that repeats a search."""
    options = {**to_dict(config), "out": config.folder}
    if config.init != NONE:
        del options["space"]  # that of the recipe
    options = {name: value for name, value in options.items() if name not in INTERNAL}
    return repeat_command(["keras-vit", "search"], options, to_dict(SearchConfig()))
