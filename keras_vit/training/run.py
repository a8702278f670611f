"""train(): images, a model and a recipe in; a run folder out."""

import dataclasses
import hashlib
import os
import platform
import shlex
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import keras
import numpy as np

from keras_vit import files
from keras_vit.data.audit import audit_images, drop_unreadable, require_readable
from keras_vit.data.pipeline import ImageData, counts_by_part
from keras_vit.data.preprocess import Preprocessing, decode_image, to_channels
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import split_image_set
from keras_vit.distribution import Distribution, ProcessShare, distribute, distribution_of
from keras_vit.errors import InputError
from keras_vit.evaluation.judge import judge
from keras_vit.files import partial_of
from keras_vit.model.summary import summary
from keras_vit.model.vit import ViT
from keras_vit.report.run import render_report
from keras_vit.runs import folder as folder_of_run
from keras_vit.runs.folder import Run, load_run
from keras_vit.runs.ood import judge_rejection
from keras_vit.training.checkpoint import (
    BEST,
    CHECKPOINT,
    Checkpoint,
    KeepBest,
    load_best,
    restore_checkpoint,
)
from keras_vit.training.config import TrainConfig, command_of, default_folder, to_dict
from keras_vit.training.folder import begin_or_resume, check_same_data, make_folder, remove, stored_config
from keras_vit.training.optimizer import compile_model

PACKAGES = ("keras", "tensorflow", "jax", "torch", "numpy", "scikit-learn")


def train(config: TrainConfig | None = None, **changes) -> Run:
    """Trains a ViT and leaves a run folder with the model, its history, its judgement and a report.

    Until the run is finished it lives in a sibling folder, `OUT.partial`; a run that was cut off, however
    hard, goes on from its last finished epoch with `resume=True` and ends as an uncut one would.

    Args:
        config: all there is to say; `None` for the defaults.
        **changes: fields of `TrainConfig` to change.

    Returns:
        The finished run.

    Raises:
        InputError: an argument or an image cannot be used; nothing is left behind.

    Example:
        >>> run = keras_vit.train(data="images", out="runs/first")
        >>> run.metrics["best"]["accuracy"]
    """
    config = dataclasses.replace(config or TrainConfig(), **changes)
    distribution = distribute(
        config.distribute, config.devices, model_devices=config.model_devices, nodes=config.nodes
    )
    try:
        return _train(config, distribution)
    except Exception as error:
        lost = distribution.lost(error)
        if lost is None:
            raise
        raise lost from error


def _train(config: TrainConfig, distribution: Distribution) -> Run:
    distribution.check_batch_size(config.recipe.batch_size)
    folder = Path(distribution.from_chief(lambda: str(config.out or default_folder(config))))
    config, partial = dataclasses.replace(config, out=folder), partial_of(folder)
    restarted = distribution.num_processes > 1
    found = distribution.from_chief(lambda: begin_or_resume(config, folder, restarted))
    if "finished" in found:
        return Run(folder, found["finished"])
    begun = found["begun"]
    if begun:
        config = stored_config(begun, config)

    data, audit = prepare_data(config)
    keras.utils.set_random_seed(config.seed)
    with distribution:
        model = build_model(config, len(data.class_names))
        compile_model(model, config.recipe, data.steps_per_epoch)
    written = _describe(config, data, model)
    _check_same_images(distribution, data)
    if begun:
        check_same_data(begun, written, partial)
    if distribution.is_chief:
        print(audit)
        print(
            f"{config.architecture}: {model.count_params():,} parameters; to repeat this run: "
            f"{command_of(config)}"
        )
        print(_progress_line(config, distribution))
    made = make_folder(partial) if distribution.is_chief else []
    try:
        if distribution.is_chief:
            files.write_json(partial / folder_of_run.CONFIG, written)
        history, best, last = fit(model, data, config.recipe, partial)
        _finish(partial, written, model, data, audit, history, best, last)
    except BaseException as error:
        if made and (isinstance(error, InputError) or not (partial / CHECKPOINT).exists()):
            remove(partial, made)  # it has diverged, or no epoch was kept: there is nothing to resume
        elif distribution.num_processes == 1:
            error.add_note(f"The run goes on with: keras-vit train --out {shlex.quote(str(folder))} --resume")
        raise
    return Run(folder, distribution.from_chief(lambda: _put_in_place(partial, folder)))


def _put_in_place(partial, folder) -> dict:
    os.replace(partial, folder)
    return load_run(folder).config


def _progress_line(config, distribution) -> str:
    batch = config.recipe.batch_size
    if distribution.num_devices == 1:
        return f"one device, {batch} images a step"
    each = batch // distribution.num_replicas
    return (
        f"{distribution}: {batch} images a step, {each} for each copy of the model; learning rate "
        f"{config.recipe.learning_rate:g} as on one device, since the global batch is the same"
    )


def _check_same_images(distribution, data):
    """Raises InputError where this process does not see the images that the chief sees."""
    names = "\n".join([*data.class_names, *data.image_set.names, *map(str, data.image_set.labels)])
    mine = hashlib.sha256(names.encode()).hexdigest()
    if distribution.from_chief(lambda: mine) != mine:
        raise InputError(
            f"{data.image_set.source} on the machine of process {distribution.process_id} does not hold the "
            "images that process 0 has: copy them, or use a shared disk."
        )


def prepare_data(config: TrainConfig):
    """The images of a run, split, and what the audit found.

    Raises:
        InputError: the source cannot be used, or images are unreadable and not to be skipped.
    """
    image_set = load_image_set(config.data)
    split = _split(config, image_set)
    audit = audit_images(image_set, split)
    if audit.unreadable and config.skip_unreadable:
        image_set = drop_unreadable(image_set, audit)
        split = _split(config, image_set)
    else:
        require_readable(audit)
    data = ImageData(
        image_set,
        split,
        Preprocessing(config.image_shape, config.aspect),
        config.recipe.batch_size,
        config.seed,
        config.recipe.augmentation,
    )
    return data, audit


def _split(config, image_set):
    return split_image_set(
        image_set,
        seed=config.seed,
        test_fraction=config.test_fraction,
        validation_fraction=config.validation_fraction,
        merge_validation=config.merge_validation,
    )


def build_model(config: TrainConfig, num_classes: int) -> ViT:
    """Raises InputError where the model cannot be made for these images."""
    try:
        return ViT.from_variant(
            config.model,
            image_shape=config.image_shape,
            num_classes=num_classes,
            dtype=config.recipe.precision,
            **config.changes.given(),
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def fit(model, data: ImageData, recipe, folder: Path):
    """`model.fit` with the callbacks of a run, from where its folder says it was cut.

    Args:
        model: compiled.
        data: the images.
        recipe: the `Recipe` it was compiled with.
        folder: where checkpoints and TensorBoard logs go.

    Returns:
        history (a list of one dict an epoch), the `KeepBest` callback, and the weights after the last epoch.
    """
    distribution = distribution_of(model)
    history = restore_checkpoint(folder, model)
    best = KeepBest(folder, recipe.early_stopping)
    best.restore(len(history), distribution)
    # The order matters: the checkpoint wants the weights that are trained, the others those that are judged.
    callbacks: list[keras.callbacks.Callback] = [EpochSeconds()]
    if recipe.ema_decay:
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    callbacks += [Checkpoint(folder, history), best, keras.callbacks.TerminateOnNaN()]
    if distribution.is_chief:
        callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False))
    if len(history) < recipe.epochs:
        process = (distribution.process_id, distribution.num_processes)
        batches = data.train_batches(len(history), *process)
        model.fit(
            ProcessShare(batches) if distribution.num_processes > 1 else batches,
            steps_per_epoch=data.steps_per_epoch,
            initial_epoch=len(history),
            epochs=recipe.epochs,
            validation_data=data.validation,
            callbacks=callbacks,
            shuffle=False,  # tf.data does it
            verbose=(1 if sys.stdout.isatty() else 2) if distribution.is_chief else 0,
        )
    if not np.isfinite(history[-1]["loss"]):
        raise InputError(
            f"The loss is no number any more in epoch {history[-1]['epoch']}: lower --learning-rate, or "
            "leave mixed_float16 out."
        )
    return history, best, best.last_weights or model.get_weights()


class EpochSeconds(keras.callbacks.Callback):
    """Adds the seconds of each epoch to what later callbacks see."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["seconds"] = round(time.perf_counter() - self.start, 2)


def _describe(config, data, model) -> dict:
    """What config.json holds: all that is needed to repeat the run."""
    return {
        "model": config.model,
        **({"model_changes": config.changes.given()} if config.changes.given() else {}),
        "model_config": model.get_config(),
        "image_shape": list(config.image_shape),
        "data": {
            "source": data.image_set.source,
            "class_names": list(data.class_names),
            "counts": counts_by_part(data.split),
        },
        "recipe": dataclasses.asdict(config.recipe),
        "seed": config.seed,
        "command": command_of(config),
        "backend": keras.backend.backend(),
        "distribution": model.distribution.describe(config.recipe.batch_size),
        "device": f"{platform.machine()}, {os.cpu_count()} processors",
        "python": platform.python_version(),
        "versions": _versions(),
        "train": to_dict(config),
    }


def _versions():
    from keras_vit.version import __version__

    found = {"keras_vit": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _finish(partial, written, model, data, audit, history, best, last_weights):
    """Judges the run in every process; the chief writes what it leaves."""
    model.set_weights(last_weights)
    last_logits = model.predict(data.test, verbose=0)
    model.set_weights(load_best(partial, model))
    best_logits = model.predict(data.test, verbose=0)
    has_validation = data.validation is not None
    nothing = np.zeros((0, len(data.class_names)), "float32")
    validation_logits = model.predict(data.validation, verbose=0) if has_validation else nothing

    def write():
        metrics = judge(
            class_names=data.class_names,
            test_labels=data.labels("test"),
            test_names=data.names("test"),
            test_logits_best=best_logits,
            test_logits_last=last_logits,
            validation_labels=data.labels("validation"),
            validation_logits_best=validation_logits,
            best_epoch=best.epoch,
            last_epoch=history[-1]["epoch"],
        )
        seconds = round(sum(row["seconds"] for row in history), 1)
        _write(partial, {**written, "seconds": seconds}, model, data, audit, history, metrics)

    model.distribution.from_chief(write)


def _write(partial, written, model, data, audit, history, metrics):
    """The files of a run; the checkpoints go last, when all else is there."""
    plain = _plain(model)
    rejection, metrics["rejection"] = judge_rejection(plain, data)
    if rejection:
        rejection.save(partial / folder_of_run.REJECTION)
    files.write_json(partial / folder_of_run.CONFIG, written)
    files.write_history(partial / folder_of_run.HISTORY, history)
    files.write_json(partial / folder_of_run.METRICS, metrics)
    _save_model(plain, partial / folder_of_run.MODEL)
    report = render_report(
        config=written,
        metrics=metrics,
        history={name: [row.get(name) for row in history] for name in history[0]},
        layer_table=summary(model).to_dict(),
        audit=audit.to_dict(),
        mistake_images=[
            original_pixels(data.image_set.images[data.split.test[mistake["index"]]])
            for mistake in metrics["mistakes"]
        ],
    )
    files.write_text(partial / folder_of_run.REPORT, report)
    for leftover in (partial / CHECKPOINT, partial / BEST, *partial.glob("*.new")):
        leftover.unlink(missing_ok=True)


def _plain(model) -> ViT:
    """The model on one device and without its optimizer: what is served, half to a third of the size."""
    plain = ViT.from_config(model.get_config())
    plain.set_weights(model.get_weights())
    return plain


def _save_model(plain, path):
    beside = path.with_name("new-" + path.name)
    plain.save(beside)
    os.replace(beside, path)


def original_pixels(image) -> np.ndarray:
    """An image at the size it came in, uint8 (height, width, 1 or 3), for a person to look at."""
    if not isinstance(image, np.ndarray):
        image = decode_image(image if isinstance(image, bytes) else Path(image).read_bytes())
    channels = 1 if image.shape[-1] < 3 else 3  # two are gray with alpha, four RGB with alpha
    return to_channels(image, channels).numpy().astype("uint8")
