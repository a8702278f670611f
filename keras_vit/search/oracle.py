"""Hyperband's oracle with files that a power cut cannot spoil, and a budget."""

import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import keras_tuner

from keras_vit.errors import InputError
from keras_vit.run_folder import read_json, write_json

DRAWS = 1000


class ViTOracle(keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband oracle; its files are written whole or not at all, with one good copy kept.

    Args:
        fits: whether a point, as values by name, is within the budget; others are not drawn.
        **options: of `keras_tuner.oracles.HyperbandOracle`.

    Raises:
        InputError: from `reload`, where both `oracle.json` and its copy are damaged; from a search, where no
            point in 1,000 is within the budget.
    """

    def __init__(self, fits: Callable[[dict], bool] = lambda values: True, **options):
        super().__init__(**options)
        self.fits = fits

    @property
    def file(self) -> Path:
        return Path(self._project_dir) / "oracle.json"

    @property
    def good_copy(self) -> Path:
        return self.file.with_name("oracle.good.json")

    def save(self):
        if self.file.is_file():
            beside = self.good_copy.with_name("oracle.good.json.new")
            shutil.copyfile(self.file, beside)
            os.replace(beside, self.good_copy)
        write_json(self.file, self.get_state())

    def reload(self):
        if not _is_json(self.file):
            if not _is_json(self.good_copy):
                raise InputError(
                    f"{self.file} and its copy are damaged: begin the search anew in another directory, or "
                    "with overwrite=True."
                )
            shutil.copyfile(self.good_copy, self.file)
        super().reload()
        for unknown in self.trials.keys() - set(self.start_order):  # begun after the copy was made
            del self.trials[unknown]

    def _save_trial(self, trial):
        folder = Path(self._project_dir) / f"trial_{trial.trial_id}"
        folder.mkdir(exist_ok=True)
        write_json(folder / "trial.json", trial.get_state())

    def _random_values(self):
        for _ in range(DRAWS):
            values = super()._random_values()
            if values is None or self.fits(values):
                return values
        raise InputError(f"None of {DRAWS} points drawn is within the budget: raise it, or narrow the space.")

    def resumable(self) -> set[str]:
        """The trials whose state may still be wanted, for a promotion or one that was cut."""
        wanted = set()
        for bracket in self.get_state()["brackets"]:
            rounds = bracket["rounds"]
            for number, (earlier, later) in enumerate(pairwise(rounds), 1):
                if len(later) < self._get_size(bracket["bracket_num"], number):
                    wanted |= {info["id"] for info in earlier}
                wanted |= {info["past_id"] for info in later if self.trials[info["id"]].status != "COMPLETED"}
        return wanted


def _is_json(path: Path) -> bool:
    try:
        read_json(path)
    except InputError:
        return False
    return True
