"""compare(): trains several kinds of models on few and on all images, and says which one pays."""

import os
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from keras_vit.comparison import folder as files_of
from keras_vit.comparison.candidates import VITS, make_trainers
from keras_vit.comparison.config import ALL, CompareConfig
from keras_vit.comparison.convolutional import from_pixels
from keras_vit.comparison.folder import Cell
from keras_vit.comparison.images import MOST, Stage
from keras_vit.comparison.outputs import write_outputs
from keras_vit.comparison.plan import all_cells, limited, numbers_of
from keras_vit.comparison.prepared import Images
from keras_vit.comparison.trainer import Probe, Trainer, steps_of
from keras_vit.data.targets import counts_of
from keras_vit.distribution import distribute
from keras_vit.errors import InputError
from keras_vit.files import write_json
from keras_vit.runs import folder as run_folder
from keras_vit.text import say


def compare(config: CompareConfig) -> dict[str, Any]:
    """Compares models on one's own images; continues a comparison that is in the folder.

    Args:
        config: of `keras_vit.comparison.config.configure`.

    Returns:
        The content of comparison.json.

    Raises:
        InputError: the images or settings cannot be used; the folder is then as it was.
    """
    began = time.monotonic()
    refuse_runs(config.train.data)
    distribute("none")  # refuses several processes
    with files_of.locked(config.folder):
        stored = files_of.stored_config(config)
        images = Images(config, stored)
        if stored is None or stored["asked"] != images.described["asked"]:
            files_of.write_config(config.folder, images.described)
        try:
            return _compare(config, images, began)
        except KeyboardInterrupt as stop:
            stop.add_note("The same command continues the comparison.")
            raise


def refuse_runs(data: str | None) -> None:
    """Raises InputError for the folder of a run, of several or of a comparison in the place of images."""
    if data is None:
        return
    if run_folder.several_runs(data) or os.path.isfile(os.path.join(data, run_folder.MODEL)):
        raise InputError(
            f"{data} is a run, not images: give two or more runs to compare them with each other, or give "
            "images."
        )


class Work:
    """The trainings of a comparison.

    Args:
        config: of the comparison.
        images: its images.
    """

    def __init__(self, config: CompareConfig, images: Images):
        self.config, self.images = config, images
        data = images.prepared(images.first_fold).data
        counts = counts_of(data.labels("train"), data.num_classes)
        self.numbers, self.notes = numbers_of(config.per_class, counts, data.class_names)
        self.cells = all_cells(config.names, self.numbers, images.folds, config.repeats)
        self.classes = data.num_classes

    @cached_property
    def trainers(self) -> dict[str, Trainer | Probe]:
        """By the name of the model."""
        images = self.images
        return make_trainers(
            images.config, images.scratch, images.start, images.class_names, images.image_set
        )

    def finished(self) -> dict[Cell, dict[str, Any]]:
        """The results that are in the folder."""
        found = {}
        for cell in self.cells:
            tested = self.images.described["tested"][max(0, cell.fold - 1)]
            length = len(tested["labels"])
            lengths = {"": length, "shift": min(length, MOST), "rotate": min(length, MOST)}
            result = files_of.read_cell(self.config.folder, cell, lengths, self.classes)
            if result is not None:
                found[cell] = result
        return found

    def data_of(self, cell: Cell) -> tuple[Stage, Any, int, int]:
        """The images of a cell: the stage, the data with its training images, its seed and its steps."""
        trainer = self.trainers[cell.model]
        stage = self.images.stage(cell.fold, cell.model)
        recipe, fixed = trainer.recipe, self.config.train.fixed_batch
        seed = seed_of(self.config.train.seed, cell)
        data = stage.draw(cell.per_class, seed, recipe, fixed)
        whole = data if cell.per_class == ALL else stage.draw(ALL, seed, recipe, fixed)
        steps = 0
        if isinstance(trainer, Trainer):
            steps = steps_of(recipe.epochs, data.steps_per_epoch, whole.steps_per_epoch)
        return stage, data, seed, steps

    def measure(self, missing: Sequence[Cell]) -> dict[str, dict[str, float]]:
        """What each model of the missing cells takes here: measured once, and kept in the folder."""
        found = files_of.read_measured(self.config.folder)
        for name, trainer in self.trainers.items():
            mine = [cell for cell in missing if cell.model == name]
            if not mine:
                continue
            if name in found:
                if isinstance(trainer, Probe):
                    trainer.expect(found[name])
                continue
            # Most of the time goes into the largest number of images.
            stage, data, _, steps = self.data_of(next(c for c in reversed(mine) if c.fold == mine[0].fold))
            _ = stage.tested  # made once, and no part of a training
            found[name] = {**trainer.measure(data, steps), **trainer.cost(data)}
            write_json(self.config.folder / files_of.MEASURED, found)
        return found

    def expected(
        self, missing: Sequence[Cell], measured: Mapping[str, Mapping[str, float]]
    ) -> dict[Cell, float]:
        """Seconds that each missing cell takes, by what was measured."""
        found: dict[Cell, float] = {}
        compiled: set[Any] = set()
        for cell in missing:
            _, data, _, steps = self.data_of(cell)
            of_model = measured[cell.model]
            tested = 3 * len(data.split.test)
            if isinstance(self.trainers[cell.model], Probe):
                # The features of every image are computed once, and the head is fitted in about a second.
                is_first = cell.model not in compiled
                computed = 2 * tested / 3 + len(data.image_set) if is_first else 0
                compiled.add(cell.model)
                found[cell] = 1.0 + computed * of_model["each_of_32"]
                continue
            seconds = steps * data.batch_size * of_model["image"] + tested * of_model["each_of_32"]
            key = (cell.model, data.batch_size)
            if key not in compiled:
                compiled.add(key)
                seconds += of_model["begin"]
            found[cell] = seconds
        return found

    def train(self, cell: Cell) -> dict[str, Any]:
        """The result of a cell, which is written to the folder."""
        stage, data, seed, steps = self.data_of(cell)
        trained = self.trainers[cell.model].train(stage, data, steps, seed)
        result = {
            "images": len(data.split.train),
            "batch_size": data.batch_size,
            "steps": trained.steps,
            "seconds": round(trained.seconds, 3),
            "diverged": trained.diverged,
            "predicted": files_of.plain(trained.predicted),
        }
        if cell in self.to_keep() and not trained.diverged:
            network = from_pixels(self.trainers[cell.model].model, data.preprocessing)
            files_of.write_model(self.config.folder, cell.model, network)
        files_of.write_cell(self.config.folder, cell, result)
        return result

    def to_keep(self) -> list[Cell]:
        """Whose networks are kept: the first convolutional ones that are trained on all images."""
        whole = [cell for cell in self.cells if cell.per_class == ALL and cell.model not in VITS]
        return [cell for cell in whole if cell.repeat == 0 and cell.fold <= 1]


def seed_of(seed: int, cell: Cell) -> int:
    """The seed of a cell: the same for all models and numbers of images."""
    return int(np.random.SeedSequence([seed, cell.fold, cell.repeat]).generate_state(1)[0] % 2**31)


def _compare(config: CompareConfig, images: Images, began: float) -> dict[str, Any]:
    images.say_of_images()
    work = Work(images.config, images)
    for line in work.notes:
        say(line)
    done = work.finished()
    missing = [cell for cell in work.cells if cell not in done]
    left_out: tuple[str, ...] = ()
    if missing:
        say(f"measuring how long each of {len(config.names)} models takes here")
        measured = work.measure(missing)
        seconds = {**dict.fromkeys(work.cells, 0.0), **work.expected(missing, measured)}
        stop_at = None
        plan_cells = missing
        about = _minutes(sum(seconds.values()))
        say(f"{_trainings(len(missing))}: about {about} ({_by_model(missing, seconds)})")
        if config.max_minutes is not None:
            stop_at = began + 60 * config.max_minutes
            plan = limited(work.cells, seconds, stop_at - time.monotonic())
            plan_cells = [cell for cell in plan.cells if cell not in done]
            left_out = plan.left_out
            if left_out:
                expected = sum(seconds[cell] for cell in plan_cells)
                say(
                    f"--max-minutes {config.max_minutes:g} leaves out {', '.join(left_out)}; the others take "
                    f"about {_minutes(expected)}"
                )
        left_out += _train_all(work, plan_cells, done, seconds, stop_at)
    found = write_outputs(images.config, images.described, work.cells, done, left_out, work.notes)
    say(f"advice: {found['advice']}")
    for name, file in found["kept"].items():
        say(f"{images.described['titles'][name]}, trained on all images: {config.folder / file}")
    if found["table"]:
        say(f"report: {config.folder / files_of.REPORT}")
    return found


def _train_all(
    work: Work,
    cells: Sequence[Cell],
    done: dict[Cell, dict[str, Any]],
    seconds: Mapping[Cell, float],
    stop_at: float | None,
) -> tuple[str, ...]:
    """Trains the cells in order, and adds their results to `done`.

    Returns:
        What was not begun for want of time, in words.
    """
    rate, spent, expected = 1.0, 0.0, 0.0
    before = None
    for number, cell in enumerate(cells, 1):
        if before not in (None, (cell.repeat, cell.fold, cell.per_class)):
            # All models are there with one more number of images: the page so far.
            undone = _trainings(sum(other not in done for other in work.cells))
            described = work.images.described
            write_outputs(work.config, described, work.cells, done, [f"{undone} to be done"], work.notes)
        before = (cell.repeat, cell.fold, cell.per_class)
        if stop_at is not None and number > 1 and time.monotonic() > stop_at:
            rest = len(cells) - number + 1
            say(f"--max-minutes is over: {_trainings(rest)} not begun; the same command continues")
            return (f"{_trainings(rest)} for want of time",)
        begin = time.monotonic()
        result = work.train(cell)
        done[cell] = result
        spent, expected = spent + time.monotonic() - begin, expected + seconds[cell]
        rate = spent / expected if expected else 1.0
        left = rate * sum(seconds[other] for other in cells[number:])
        tested = work.images.described["tested"][max(0, cell.fold - 1)]
        right = np.mean(np.array(result["predicted"][""]) == tested["labels"])
        of = (
            f"{cell.per_class} images per class"
            if cell.per_class != ALL
            else f"all {result['images']} images"
        )
        fold = f", fold {cell.fold}" if cell.fold else ""
        diverged = ", the loss became NaN" if result["diverged"] else ""
        say(
            f"{number}/{len(cells)}  {cell.model:11}  {of}{fold}, repeat {cell.repeat + 1}: {right:.1%} right"
            f"{diverged}, {result['seconds']:.0f} s" + (f"; about {_minutes(left)} left" if left else "")
        )
    return ()


def _trainings(count: int) -> str:
    return f"{count} training{'s' * (count != 1)}"


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _by_model(cells: Sequence[Cell], seconds: Mapping[Cell, float]) -> str:
    by_model: dict[str, float] = {}
    for cell in cells:
        by_model[cell.model] = by_model.get(cell.model, 0.0) + seconds[cell]
    return ", ".join(f"{name} {_minutes(value)}" for name, value in by_model.items())
