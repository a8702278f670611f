"""One training run: images, a model and a recipe in; a run folder out."""

import dataclasses
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from keras_vit import files
from keras_vit.data.image_set import Image, ImageSet
from keras_vit.data.origin import recorded_fixes
from keras_vit.data.overview import Overview
from keras_vit.data.pipeline import ImageData
from keras_vit.data.sources import load_image_set
from keras_vit.distribution import Distribution, distribute
from keras_vit.distribution.accelerators import has_accelerator
from keras_vit.distribution.precision import precision_for
from keras_vit.errors import InputError
from keras_vit.files import partial_of
from keras_vit.model.random_stream import seeded
from keras_vit.runs import folder as run_folder
from keras_vit.runs.folder import Run
from keras_vit.runs.images import IMAGES, ImageRecord
from keras_vit.sealed import seal
from keras_vit.text import say
from keras_vit.training.accepted_risk import check_accepted_risk
from keras_vit.training.balance import with_sampling_of
from keras_vit.training.checkpoint import CHECKPOINT
from keras_vit.training.config import NONE, TrainConfig, default_folder
from keras_vit.training.decision import check_decision
from keras_vit.training.defaults import choose_by_images, line_of_images, with_batch_of
from keras_vit.training.folder import (
    begin_or_resume,
    check_same_data,
    images_of,
    make_unfinished,
    owned,
    publish,
    stored_config,
)
from keras_vit.training.loop import fit
from keras_vit.training.objective import settle
from keras_vit.training.ood_examples import read_examples
from keras_vit.training.optimizer import compile_model
from keras_vit.training.options import command_of
from keras_vit.training.outputs import describe, finish
from keras_vit.training.prepare import prepare, same_images
from keras_vit.training.probe import begin_with_probe, probe_run
from keras_vit.training.start import begin, check_recipe, choose_recipe, choose_weights
from keras_vit.training.unfreezing import check_tuning


def train_on(
    config: TrainConfig,
    record: ImageRecord | None = None,
    image_set: ImageSet | None = None,
    whole: Path | None = None,
) -> Run:
    """Trains one run: see `keras_vit.train`.

    Args:
        config: all settings.
        record: of a search, whose images and split are used again; `None` draws the split.
        image_set: what `config.data` names, if it is loaded already.
        whole: the folder of several runs that this is one of: what `--resume` is to be given.
    """
    distribution = distribute(
        config.distribute, config.devices, model_devices=config.model_devices, nodes=config.nodes
    )
    try:
        folder = Path(distribution.from_chief(lambda: str(config.out or default_folder(config))))
        with owned(folder, distribution) as is_owned:
            placed = dataclasses.replace(config, out=folder)
            return _train(placed, distribution, is_owned, record, image_set, whole)
    except Exception as error:
        lost = distribution.lost(error)
        if lost is None:
            raise
        raise lost from error


def _train(
    config: TrainConfig,
    distribution: Distribution,
    is_owned: bool,
    record: ImageRecord | None,
    image_set: ImageSet | None,
    whole: Path | None,
) -> Run:
    distribution.check_batch_size(config.recipe.batch_size)
    folder = Path(str(config.out))
    partial = partial_of(folder)
    restarted = distribution.num_processes > 1
    found = distribution.from_chief(lambda: begin_or_resume(config, folder, restarted, is_owned))
    if "finished" in found:
        return Run(folder, found["finished"])
    unfinished = found["unfinished"]
    if unfinished is not None:
        config = stored_config(unfinished, config)

    config = choose_weights(config)
    record = images_of(unfinished, partial, distribution) or record
    notes: list[str] = []
    if image_set is None:
        image_set = load_image_set(config.data, **config.of_tables | recorded_fixes(unfinished))
    if record is not None:
        image_set, notes = same_images(record, image_set)
    overview = Overview(image_set.images, config.background, config.tiff_page)
    chosen = distribution.from_chief(lambda: choose_by_images(config, image_set, overview, has_accelerator()))
    config = dataclasses.replace(config, **chosen)
    start = begin(config)
    if unfinished is not None:  # an earlier version may have read the files in another way
        start = dataclasses.replace(start, preprocessing=Run(partial, unfinished).preprocessing)
    if config.init == NONE:
        config = dataclasses.replace(config, model=config.size)
    config = settle(choose_recipe(config, image_set), image_set)
    precision, said = distribution.from_chief(lambda: precision_for(config.recipe.precision))
    config = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, precision=precision))
    notes += [said] if said else []
    check_recipe(config)
    prepared = prepare(
        config,
        preprocessing=start.preprocessing,
        image_set=image_set,
        keep_prepared=config.recipe.tune != "head",
        record=record,
        replicas=distribution.num_replicas,
        is_settled=unfinished is not None,
    )
    data, audit = prepared.data, prepared.audit
    notes += prepared.notes
    check_accepted_risk(config, data)
    check_decision(config, data)
    config, cut = with_batch_of(config, data)
    config, balance = with_sampling_of(config, data)
    notes += cut + balance
    if left_out := config.recipe.augmentation.left_out(data.image_shape[2]):
        notes.append(left_out)
    with seeded(config.seed), distribution:
        model = start.build(config, data.class_names)
    check_tuning(config.recipe, model.config)
    examples: Sequence[Image] = ()
    if config.ood_examples is not None and distribution.is_chief:
        examples = read_examples(config.ood_examples, prepared)
    described = describe(config, start, data, model)
    _check_same_images(distribution, data)
    if unfinished is not None:
        notes += check_same_data(unfinished, described, partial)
        # Its settings as they were written, perhaps by an earlier version: the checkpoint belongs to these.
        described["train"] = {**unfinished["train"], "data": described["train"]["data"]}
    if distribution.is_chief:
        for line in notes:
            say(line)
        say(audit)
        if unfinished is None and (said := line_of_images(config, chosen, overview, data.image_shape)):
            say(said)
        for line in start.lines():
            say(line)
        say(
            f"{config.architecture}: {model.count_params():,} parameters; to repeat this run: "
            f"{command_of(config)}"
        )
        if config.recipe.tune != "head":
            say(_progress_line(config, distribution))
    is_new = distribution.is_chief and make_unfinished(partial, **found)
    try:
        if distribution.is_chief:
            prepared.record.write(partial)
            files.write_json(partial / run_folder.CONFIG, seal(described, partial, [IMAGES]))
        if config.recipe.tune == "head":
            distribution.from_chief(
                lambda: probe_run(partial, described, start, model, prepared, config, examples)
            )
        else:
            with distribution:
                if start.has_new_head(model):
                    begin_with_probe(start, model, data, image_set)
                compile_model(model, config.recipe, data.steps_per_epoch, data.several)
            history, best, last_weights = fit(model, data, config.recipe, partial)
            finish(partial, described, model, data, audit, history, best, last_weights, config, examples)
    except BaseException as error:
        if is_new and (isinstance(error, InputError) or not (partial / CHECKPOINT).exists()):
            # It has diverged, or no epoch was kept: there is nothing to resume.
            shutil.rmtree(partial, ignore_errors=True)
        elif distribution.num_processes == 1 and not isinstance(error, InputError):
            error.add_note(
                f"The run continues with: keras-vit train --out {shlex.quote(str(whole or folder))} --resume"
            )
        raise
    return Run(folder, distribution.from_chief(lambda: publish(partial, folder)))


def _progress_line(config: TrainConfig, distribution: Distribution) -> str:
    batch = config.recipe.batch_size
    if distribution.num_devices == 1:
        return f"one device, {batch} images per step"
    each = batch // distribution.num_replicas
    return (
        f"{distribution}: {batch} images per step, {each} for each copy of the model; learning rate "
        f"{config.recipe.learning_rate:g} as on one device, since the global batch is the same"
    )


def _check_same_images(distribution: Distribution, data: ImageData) -> None:
    """Raises InputError where this process does not see the images that the chief sees."""
    mine = data.image_set.fingerprint()
    if distribution.from_chief(lambda: mine) != mine:
        raise InputError(
            f"{data.image_set.source} on the machine of process {distribution.process_id} does not hold the "
            "images that process 0 has: copy them, or use a shared disk."
        )
