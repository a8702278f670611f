"""The settings of a run from a file: what `--config` takes. Nothing here imports Keras."""

import dataclasses
import json
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from keras_vit.errors import InputError
from keras_vit.training.config import DEVICES, TrainConfig

FOUND = "found"
"""the key of a best.json that is for people: how its settings were found"""

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def read_config(path: Path) -> TrainConfig:
    """The settings in the best.json of a search or the config.json of a run.

    Settings that the file leaves out have their defaults.

    Args:
        path: a JSON file as `to_dict` gives it, or one that has it under "train". What is under "found" is
            for people.

    Raises:
        InputError: there is no such file, or something in it is no setting, or a value none for it.
    """
    plain = _read_json(path)
    if isinstance(plain, dict) and isinstance(plain.get("train"), dict):
        plain = plain["train"]
    try:
        if not isinstance(plain, dict):
            raise InputError("it holds no settings by name.")
        return _changed(TrainConfig(), {name: plain[name] for name in plain if name != FOUND})
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error


def _read_json(path: Path):
    mend = "give the best.json of a search or the config.json of a run"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no file {path}: {mend}.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder: {mend}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {mend}.") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}): {mend}.") from error


def _changed(defaults, plain: dict[str, Any]):
    """A dataclass of plain values with those that a file gives."""
    hints = get_type_hints(type(defaults))
    if isinstance(defaults, TrainConfig):
        for name in ("out", "resume", *DEVICES):  # where a run is made, no file says
            del hints[name]
    unknown = sorted(plain.keys() - hints.keys())
    if unknown:
        raise InputError(f"it has unknown settings: {', '.join(unknown)}.")
    given = {}
    for name, value in plain.items():
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, dict):
                raise InputError(f"{name} must hold settings by name. Received: {name}={value!r}")
            given[name] = _changed(getattr(defaults, name), value)
        else:
            try:
                given[name] = _typed(value, hints[name])
            except TypeError:
                raise InputError(
                    f"{name} must be {_words(hints[name])}. Received: {name}={value!r}"
                ) from None
    return dataclasses.replace(defaults, **given)


def _typed(value, hint):
    """The value as Python has it; TypeError where it is of another type than the hint."""
    options = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        for option in options:
            try:
                return _typed(value, option)
            except TypeError:
                continue
    elif get_origin(hint) is Literal:
        if (type(value), value) in [(type(option), option) for option in options]:
            return value
    elif get_origin(hint) is tuple:
        if isinstance(value, list) and len(value) == len(options):
            return tuple(map(_typed, value, options))
    elif isinstance(value, bool) == (hint is bool):
        if hint is float and isinstance(value, int):
            return float(value)
        if isinstance(value, hint):
            return value
    raise TypeError


def _words(hint) -> str:
    options = get_args(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, options))}"
    if get_origin(hint) is tuple:
        return f"a list of {len(options)} whole numbers"
    return " or ".join(map(_words, options)) or WORDS[hint]
