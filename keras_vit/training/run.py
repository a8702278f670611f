"""train(): images, a model and a recipe in; a run folder out."""

import contextlib
import dataclasses
import os
import platform
import shlex
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import keras
import numpy as np

from keras_vit import run_folder
from keras_vit.data.audit import audit_images, drop_unreadable, require_readable
from keras_vit.data.images import load_image_set
from keras_vit.data.pipeline import ImageData, counts_by_part
from keras_vit.data.preprocess import Preprocessing, decode_image, to_channels
from keras_vit.data.split import split_image_set
from keras_vit.errors import InputError
from keras_vit.evaluation.judge import judge
from keras_vit.evaluation.report import render_report
from keras_vit.run_folder import Run, load_run, partial_of
from keras_vit.summary import summary
from keras_vit.training.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    KeepBest,
    load_best,
    restore_checkpoint,
)
from keras_vit.training.compile import compile_model
from keras_vit.training.config import (
    TrainConfig,
    command_of,
    default_folder,
    differences,
    from_dict,
    to_dict,
)
from keras_vit.vit import ViT

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
    folder = Path(config.out) if config.out else default_folder(config)
    config = dataclasses.replace(config, out=folder)
    partial = partial_of(folder)
    if config.resume and folder.is_dir():
        return load_run(folder)
    _check_place(folder, partial, config.resume)
    if config.resume:
        config = _stored_config(partial, config)

    data, audit = prepare_data(config)
    keras.utils.set_random_seed(config.seed)
    model = build_model(config, len(data.class_names))
    compile_model(model, config.recipe, data.steps_per_epoch)
    print(audit)
    print(f"{config.model}: {model.count_params():,} parameters; to repeat this run: {command_of(config)}")
    written = _describe(config, data, model)
    if config.resume:
        _check_same_data(partial, written)
    made = _make_folder(partial)
    try:
        run_folder.write_json(partial / run_folder.CONFIG, written)
        history, best, last = fit(model, data, config.recipe, partial)
        _finish(partial, written, model, data, audit, history, best, last)
    except BaseException as error:
        if made and (isinstance(error, InputError) or not (partial / CHECKPOINT).exists()):
            _remove(partial, made)  # it has diverged, or no epoch was kept: there is nothing to resume
        else:
            error.add_note(f"The run goes on with: keras-vit train --out {shlex.quote(str(folder))} --resume")
        raise
    os.replace(partial, folder)
    return load_run(folder)


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
    )


def build_model(config: TrainConfig, num_classes: int) -> ViT:
    """Raises InputError where the model cannot be made for these images."""
    try:
        return ViT.from_variant(
            config.model,
            image_shape=config.image_shape,
            num_classes=num_classes,
            dtype=config.recipe.precision,
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
    history = restore_checkpoint(folder, model)
    best = KeepBest(folder, recipe.early_stopping)
    best.restore(before_epoch=len(history))
    # The order matters: the checkpoint wants the weights that are trained, the others those that are judged.
    callbacks: list[keras.callbacks.Callback] = [EpochSeconds()]
    if recipe.ema_decay:
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    callbacks += [
        Checkpoint(folder, history),
        best,
        keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False),
        keras.callbacks.TerminateOnNaN(),
    ]
    if len(history) < recipe.epochs:
        model.fit(
            data.train_batches(len(history)),
            steps_per_epoch=data.steps_per_epoch,
            initial_epoch=len(history),
            epochs=recipe.epochs,
            validation_data=data.validation,
            callbacks=callbacks,
            shuffle=False,  # tf.data does it
            verbose=1 if sys.stdout.isatty() else 2,
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


def _check_place(folder, partial, resume):
    if folder.exists():
        raise InputError(f"{folder} is there already: choose another --out, or remove it.")
    if partial.is_dir() and not resume:
        raise InputError(
            f"{partial} holds a run that was cut off: add --resume to go on with it, or remove it."
        )
    if resume and not partial.is_dir():
        raise InputError(f"There is no cut-off run {partial} to resume: leave out --resume to begin one.")
    if resume and not (partial / run_folder.CONFIG).is_file():
        raise InputError(
            f"{partial} has no {run_folder.CONFIG}, so nothing to resume: remove it, and leave out --resume."
        )


def _make_folder(partial) -> list[Path]:
    """Makes the folder and its parents; those that were not there, the deepest first."""
    made = [folder for folder in (partial, *partial.parents) if not folder.exists()]
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove(partial, made)
        raise InputError(f"{partial} cannot be made ({error.strerror}): choose another --out.") from error
    return made


def _remove(partial, made):
    """Takes away a run that came to nothing, and the parents made for it that hold nothing else."""
    if made:
        shutil.rmtree(partial, ignore_errors=True)
    for folder in made[1:]:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _check_same_data(partial, written):
    begun = run_folder.read_json(partial / run_folder.CONFIG)
    if begun.get("data") != written["data"]:
        raise InputError(
            f"{written['data']['source']} has changed since {partial} was begun: bring the images back to "
            "resume it, or begin a new run with another --out."
        )


def _stored_config(partial, config) -> TrainConfig:
    """The config a run was begun with, after making sure that nothing else is asked for now."""
    path = partial / run_folder.CONFIG
    try:
        stored = from_dict(run_folder.read_json(path)["train"], out=config.out, resume=True)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: remove {partial}, and leave out --resume.") from error
    asked = dict(differences(config, stored))
    wanted = dict(differences(config, TrainConfig()))
    for name in asked.keys() & wanted.keys():
        raise InputError(
            f"{config.out} was begun with another {name} than {wanted[name]}: leave that option out to "
            "resume it, or begin a new run with another --out."
        )
    return stored


def _describe(config, data, model) -> dict:
    """What config.json holds: all that is needed to repeat the run."""
    return {
        "model": config.model,
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
        "device": f"{platform.machine()}, {os.cpu_count()} processors",
        "python": platform.python_version(),
        "versions": _versions(),
        "train": to_dict(config),
    }


def _versions():
    from keras_vit import __version__

    found = {"keras_vit": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _finish(partial, written, model, data, audit, history, best, last_weights):
    """Judges the run and writes what it leaves; the checkpoints go last, when all else is there."""
    model.set_weights(last_weights)
    last_logits = model.predict(data.test, verbose=0)
    model.set_weights(load_best(partial))
    best_logits = model.predict(data.test, verbose=0)
    has_validation = data.validation is not None
    metrics = judge(
        class_names=data.class_names,
        test_labels=data.labels("test"),
        test_names=data.names("test"),
        test_logits_best=best_logits,
        test_logits_last=last_logits,
        validation_labels=data.labels("validation"),
        validation_logits_best=model.predict(data.validation, verbose=0)
        if has_validation
        else np.zeros((0, len(data.class_names)), "float32"),
        best_epoch=best.epoch,
        last_epoch=history[-1]["epoch"],
    )
    written = {**written, "seconds": round(sum(row["seconds"] for row in history), 1)}
    run_folder.write_json(partial / run_folder.CONFIG, written)
    run_folder.write_history(partial / run_folder.HISTORY, history)
    run_folder.write_json(partial / run_folder.METRICS, metrics)
    _save_model(model, partial / run_folder.MODEL)
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
    run_folder.write_text(partial / run_folder.REPORT, report)
    for leftover in (*partial.glob("*.npz"), *partial.glob("*.new")):
        leftover.unlink()


def _save_model(model, path):
    """The model without its optimizer: what is served, and half to a third of the size."""
    plain = ViT.from_config(model.get_config())
    plain.set_weights(model.get_weights())
    beside = path.with_name("new-" + path.name)
    plain.save(beside)
    os.replace(beside, path)


def original_pixels(image) -> np.ndarray:
    """An image at the size it came in, uint8 (height, width, 1 or 3), for a person to look at."""
    if not isinstance(image, np.ndarray):
        image = decode_image(image if isinstance(image, bytes) else Path(image).read_bytes())
    channels = 1 if image.shape[-1] < 3 else 3  # two are gray with alpha, four RGB with alpha
    return to_channels(image, channels).numpy().astype("uint8")
