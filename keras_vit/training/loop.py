"""`model.fit` with the callbacks of a run."""

import sys
import time
from pathlib import Path

import keras
import numpy as np

from keras_vit.data.pipeline import ImageData
from keras_vit.distribution import ProcessShare, distribution_of
from keras_vit.errors import InputError
from keras_vit.training.checkpoint import Checkpoint, KeepBest, restore_checkpoint
from keras_vit.training.learned import SayNothingLearned
from keras_vit.training.learned_labels import SayNoLabelLearned
from keras_vit.training.recipe import Recipe


def fit(
    model: keras.Model, data: ImageData, recipe: Recipe, folder: Path
) -> tuple[list[dict], KeepBest, list[np.ndarray]]:
    """Trains a model, from where its folder says that the run was cut off.

    Args:
        model: compiled.
        data: the images.
        recipe: the `Recipe` it was compiled with.
        folder: where checkpoints and TensorBoard logs go.

    Returns:
        history (a list of one dict per epoch), the `KeepBest` callback, and the weights after the last epoch.

    Raises:
        InputError: the loss became NaN.
    """
    distribution = distribution_of(model)
    history = restore_checkpoint(folder, model)
    best = KeepBest(folder, recipe.early_stopping, recipe.best_by)
    best.restore(len(history), distribution)
    # The order matters: the checkpoint needs the weights that are trained, the others those that are judged.
    callbacks: list[keras.callbacks.Callback] = [EpochSeconds()]
    if recipe.ema_decay:
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    callbacks += [Checkpoint(folder, history), best, keras.callbacks.TerminateOnNaN()]
    callbacks.append((SayNoLabelLearned if data.several else SayNothingLearned)(data, recipe))
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
            f"The loss became NaN in epoch {history[-1]['epoch']}: lower --learning-rate, or leave "
            "mixed_float16 out."
        )
    return history, best, best.last_weights or model.get_weights()


class EpochSeconds(keras.callbacks.Callback):
    """Adds the seconds of each epoch to what later callbacks see."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["seconds"] = round(time.perf_counter() - self.start, 2)
