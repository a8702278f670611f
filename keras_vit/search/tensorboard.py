"""Logs and HParams of a search for TensorBoard, on every backend."""

import math
from pathlib import Path

import keras
from keras_tuner.engine.trial import Trial


class TrialBoard(keras.callbacks.TensorBoard):
    """The curves of a trial, its hyperparameters and its score, for TensorBoard's HParams page.

    KerasTuner logs hyperparameters on the TensorFlow backend only.

    Args:
        folder: holds the logs of the search; those of the trial go into a folder inside it.
        trial: KerasTuner's.
        objective: the metric that the HParams page sorts by.
    """

    def __init__(self, folder: Path, trial: Trial, objective: str):
        super().__init__(folder / trial.trial_id, write_graph=False)
        self.folder = folder
        self.trial = trial
        self.objective = objective

    def __deepcopy__(self, memo):  # KerasTuner copies callbacks for each execution
        return TrialBoard(self.folder, self.trial, self.objective)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.scores: list[float] = []

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.scores.append(float((logs or {}).get(self.objective, math.nan)))

    def on_train_end(self, logs=None):
        import tensorflow as tf
        from tensorboard.plugins.hparams import api

        super().on_train_end(logs)
        values = {
            name.removeprefix("tuner/"): value
            for name, value in self.trial.hyperparameters.values.items()
            if value is not None
        }
        with tf.summary.create_file_writer(str(self.folder / self.trial.trial_id)).as_default():
            api.hparams(values, trial_id=self.trial.trial_id)
            best = max((score for score in self.scores if not math.isnan(score)), default=math.nan)
            tf.summary.scalar(self.objective, best, step=values.get("epochs", len(self.scores)))
