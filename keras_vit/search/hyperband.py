"""KerasTuner's Hyperband, in which promoted trials continue where they stopped."""

import errno
import os
import time
import traceback
from pathlib import Path
from typing import Any

import keras_tuner

from keras_vit.distribution import current_distribution
from keras_vit.errors import InputError
from keras_vit.files import write_text
from keras_vit.search.chief import ChiefClient, serve
from keras_vit.search.hypermodel import ViTHyperModel
from keras_vit.search.oracle import ViTOracle
from keras_vit.search.remote_oracle import FirstProcessOracle, PatientOracle
from keras_vit.search.trial_files import ERROR, KILLED, WEIGHTS
from keras_vit.search.trial_state import TrialState, count_kills, release_memory

IDLE_SECONDS = 0.5  # before a worker that has nothing to do asks again


class ViTHyperband(keras_tuner.Hyperband):
    """Hyperband (Li et al. 2018, https://jmlr.org/papers/v18/16-558.html) with real promotions.

    KerasTuner starts a promoted trial with the weights of its best epoch and a new optimizer, so that warm-up
    and schedule begin again. Here it continues with model, optimizer, step count, schedule and moving
    averages: a trial promoted from 3 to 9 epochs equals one trained for 9.

    The search can be killed at any moment, and the same lines continue it; see `ViTOracle`. Models over the
    budget are not drawn, and the files of losing trials are removed. Inside `keras_vit.distribute()` all
    devices train each trial together. With KerasTuner's variables `KERASTUNER_TUNER_ID`,
    `KERASTUNER_ORACLE_IP` and `KERASTUNER_ORACLE_PORT` it is the chief or a worker of a search on several
    machines.

    Each trial's folder gets `result.json`: its history, one row per epoch, the seconds of `fit` and the
    number of parameters.

    Args:
        hypermodel: a `ViTHyperModel`; the longest trial has the `epochs` of its space.
        objective: see `keras_tuner.Hyperband`.
        max_epochs: that of the space, or `None`.
        factor: see `keras_tuner.Hyperband`.
        hyperband_iterations: see `keras_tuner.Hyperband`.
        seed: see `keras_tuner.Hyperband`.
        max_retries_per_trial: see `keras_tuner.Hyperband`.
        max_consecutive_failed_trials: see `keras_tuner.Hyperband`.
        max_trials: begin no more trials than these.
        stop_at: seconds since the epoch (`time.time()`) after which no trial is begun.
        tensorboard: a folder for TensorBoard's logs and HParams, with one folder per trial.
        **options: of `keras_tuner.Tuner`, such as `directory`, `project_name`, `overwrite`.

    Raises:
        InputError: `max_epochs` differs from the epochs of the space, these are searched, or the devices do
            not divide one of its batch sizes.
    """

    def __init__(
        self,
        hypermodel: ViTHyperModel,
        objective: str | keras_tuner.Objective = "val_accuracy",
        max_epochs: int | None = None,
        factor: int = 3,
        hyperband_iterations: int = 1,
        seed: int | None = None,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        max_trials: int | None = None,
        stop_at: float | None = None,
        tensorboard: str | Path | None = None,
        **options: Any,
    ):
        epochs = hypermodel.space.epochs
        if not isinstance(epochs, int):
            raise InputError(f"Hyperband sets the epochs itself: give a number of epochs. Received: {epochs}")
        if max_epochs not in (None, epochs):
            raise InputError(
                f"max_epochs={max_epochs} differs from the {epochs} epochs of the space, over which the "
                "schedule is laid out: set SearchSpace(epochs=...)."
            )
        self._distribution = current_distribution()
        self._tensorboard = Path(tensorboard) if tensorboard else None
        self._is_idle = self._has_run = False
        oracle = ViTOracle(
            hypermodel.fits_budget,
            shared=_is_chief(),
            space=_declared(hypermodel),
            max_trials=max_trials,
            stop_at=stop_at,
            objective=objective,
            max_epochs=epochs,
            factor=factor,
            hyperband_iterations=hyperband_iterations,
            seed=seed,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        # Not that of Hyperband, which makes its own oracle.
        keras_tuner.Tuner.__init__(self, oracle=oracle, hypermodel=hypermodel, **options)
        asked: Any = oracle
        if self._is_worker():
            # Not KerasTuner's client, which is trusted without a proof and trusts in the same way.
            folder, address = Path(self.project_dir), _address()
            asked = PatientOracle(ChiefClient(oracle, folder, address, self.tuner_id))
        if self._distribution.num_processes > 1:
            asked = FirstProcessOracle(asked, self._distribution)
        self.oracle = asked

    # Files: that of KerasTuner's tuner is empty. The oracle's shows whether there is a search already.

    def _get_tuner_fname(self):
        file = Path(self.project_dir) / "oracle.json"
        copy = file.with_name("oracle.good.json")
        return str(copy if copy.is_file() and not file.is_file() else file)

    def save(self):
        if not self._is_worker():
            self.oracle.save()

    def reload(self):
        if not self._is_worker():
            self.oracle.reload()

    def _get_checkpoint_fname(self, trial_id):
        name = WEIGHTS
        if not self._distribution.is_chief:  # each process of a trial saves the weights
            name = f"process{self._distribution.process_id}.{WEIGHTS}"
        return str(Path(self.get_trial_dir(trial_id)) / name)

    # The search.

    def _populate_initial_space(self):
        # KerasTuner would build models to find conditional hyperparameters, of which the space has none.
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        if not _is_chief():
            return super().search(*fit_args, **fit_kwargs)
        self.oracle.verbose = fit_kwargs.get("verbose", "auto")
        self.save()
        serve(self.oracle, Path(self.project_dir), _address())

    def pre_create_trial(self):
        if self._is_idle:
            time.sleep(IDLE_SECONDS)  # KerasTuner would ask again at once, without a pause
        elif self._has_run:
            release_memory()
        self._is_idle = True

    def on_trial_begin(self, trial):
        self._is_idle, self._has_run = False, True
        super().on_trial_begin(trial)

    def run_trial(self, trial, *fit_args, **fit_kwargs):
        folder = Path(self.get_trial_dir(trial.trial_id))
        try:
            with count_kills(folder / KILLED, self._distribution):
                return self._run_trial(folder, trial, *fit_args, **fit_kwargs)
        except keras_tuner.errors.FatalError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise keras_tuner.errors.FatalRuntimeError(
                    f"The disk is full at {folder}: make room."
                ) from error
            write_text(folder / ERROR, traceback.format_exc())
            raise

    def _run_trial(self, folder, trial, *fit_args, **fit_kwargs):
        promoted = trial.hyperparameters.values.get("tuner/trial_id")
        restore_from = Path(self.get_trial_dir(promoted)) if promoted else None
        given = list(fit_kwargs.pop("callbacks", None) or [])
        if self._tensorboard and self._distribution.is_chief:
            from keras_vit.search.tensorboard import TrialBoard

            given.append(TrialBoard(self._tensorboard, trial, self.oracle.objective.name))
        state = TrialState(folder, restore_from)
        found = super().run_trial(trial, *fit_args, callbacks=[state, *given], **fit_kwargs)
        if not self._distribution.is_chief:
            Path(self._get_checkpoint_fname(trial.trial_id)).unlink(missing_ok=True)
        return found

    def _try_build(self, hp):
        # KerasTuner clears the session first, and with it the scope of TensorFlow's strategies.
        return super()._try_build(hp) if self._distribution.num_devices == 1 else self._build_hypermodel(hp)

    def _build_hypermodel(self, hp):
        # Not that of Hyperband, which loads the weights of the best epoch: TrialState restores the last.
        return keras_tuner.Tuner._build_hypermodel(self, hp)


def _declared(hypermodel: ViTHyperModel) -> keras_tuner.HyperParameters:
    space = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(space)
    return space


def _address() -> str:
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"


def _is_chief() -> bool:
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")
