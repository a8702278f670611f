"""The folder of a search: what it was begun as, and that one command at a time works in it."""

import contextlib
import shlex
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from keras_vit.errors import InputError
from keras_vit.run_folder import read_json, write_json
from tuning.config import SearchConfig, describe_search, from_dict, to_dict
from tuning.record import SEARCH

WALL = "wall_seconds.json"
PACKAGES = ("keras_vit", "keras", "keras-tuner", "tensorflow", "jax", "torch", "numpy", "scikit-learn")


def logs(folder: Path) -> Path:
    """The folder for what processes print."""
    path = folder / "logs"
    path.mkdir(exist_ok=True)
    return path


@contextlib.contextmanager
def locked(folder: Path):
    """Holds a search's folder, which is made where it is not there, for this process alone.

    Raises:
        InputError: the folder cannot be made, or another process has it.
    """
    lock = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise InputError(f"{folder} cannot be used ({error.strerror}): choose another --out.") from error
    with open(lock, "a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # no such locks on this system
        except OSError as error:
            raise InputError(
                f"Another search is running in {folder}: wait for it, or choose another --out."
            ) from error
        yield


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
        return from_dict(read_json(file).get("asked", {}), config)
    others = [one.name for one in config.folder.iterdir() if one.name not in ("lock", "logs")]
    if others:
        raise InputError(f"{config.folder} holds other things ({others[0]}): choose another --out.")
    return config


@contextlib.contextmanager
def timed(folder: Path):
    """Adds the seconds that a start of the search takes to those of earlier ones."""
    before, begin = wall_seconds(folder), time.monotonic()
    try:
        yield
    finally:
        write_json(folder / WALL, round(before + time.monotonic() - begin, 1))


def wall_seconds(folder: Path) -> float:
    """What all starts of the search have taken; one that was killed hard is not among them."""
    return read_json(folder / WALL) if (folder / WALL).is_file() else 0.0


def remember_images(config: SearchConfig, images) -> None:
    """Writes search.json, or makes sure that images and backend are those that it was written for.

    Raises:
        InputError: they have changed.
    """
    file = config.folder / SEARCH
    if file.is_file():
        found = read_json(file)
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
            "versions": _versions(),
            "command": command_of(config),
        },
    )


def command_of(config: SearchConfig) -> str:
    """The shell command that repeats a search."""
    default = to_dict(SearchConfig())
    words = ["python", "-m", "tuning"]
    for name, value in to_dict(config).items():
        if value == default[name]:
            continue
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool) and name != "xla":
            words.append(option)
        else:
            words += [option, *map(str, value if isinstance(value, list) else [value])]
    return shlex.join([*words, "--out", str(config.folder)])


def _versions() -> dict[str, str]:
    from keras_vit import __version__

    found = {"keras_vit": __version__}
    for name in PACKAGES[1:]:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
