"""The settings of a run from a file: what `--config` takes. Nothing here imports Keras."""

from pathlib import Path

from keras_vit.errors import InputError
from keras_vit.files import read_json
from keras_vit.training.config import TrainConfig, from_dict

FOUND = "found"
"""the key of a best.json that is for people: how its settings were found"""


def read_config(path: Path) -> TrainConfig:
    """The settings in the best.json of a search or the config.json of a run.

    Settings that the file leaves out have their defaults.

    Args:
        path: a JSON file with what `to_dict` gives, at the top or under "train". What is under "found" is for
            people.

    Raises:
        InputError: there is no such file, something in it is not a setting, or a value does not fit.
    """
    plain = read_json(path, fix="give the best.json of a search or the config.json of a run")
    if isinstance(plain, dict):
        plain = plain["train"] if isinstance(plain.get("train"), dict) else plain
        plain = {name: value for name, value in plain.items() if name != FOUND}
    try:
        return from_dict(plain)
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error
