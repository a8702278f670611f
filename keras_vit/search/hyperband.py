"""KerasTuner's Hyperband whose promoted trials go on where they stopped."""

from pathlib import Path

import keras
import keras_tuner

from keras_vit.errors import InputError
from keras_vit.run_folder import write_json
from keras_vit.search.hypermodel import ViTHyperModel
from keras_vit.search.oracle import ViTOracle
from keras_vit.training.checkpoint import CHECKPOINT, restore_checkpoint, save_checkpoint

KEEP = 3


class ViTHyperband(keras_tuner.Hyperband):
    """Hyperband (Li et al. 2018, https://jmlr.org/papers/v18/16-558.html) with real promotions.

    KerasTuner's own begins a promoted trial with the weights of its best epoch and a new optimizer, so that
    warm-up and schedule start again. Here it goes on with model, optimizer, step count, schedule and moving
    averages: a trial promoted from 3 to 9 epochs is the one trained for 9.

    The oracle's files survive a kill at any moment, models over the budget are not drawn, and what losing
    trials leave is removed: the weights of the best `KEEP` stay.

    Args:
        hypermodel: a `ViTHyperModel`; the longest trial has its space's `epochs`.
        objective: see `keras_tuner.Hyperband`.
        factor, hyperband_iterations, seed, max_retries_per_trial, max_consecutive_failed_trials: of the same.
        **options: of `keras_tuner.Tuner`, such as `directory`, `project_name`, `overwrite`.

    Raises:
        InputError: `max_epochs` is another number than the space's.
    """

    def __init__(
        self,
        hypermodel: ViTHyperModel,
        objective="val_accuracy",
        max_epochs=None,
        factor=3,
        hyperband_iterations=1,
        seed=None,
        max_retries_per_trial=0,
        max_consecutive_failed_trials=3,
        **options,
    ):
        epochs = hypermodel.space.epochs
        if max_epochs not in (None, epochs):
            raise InputError(
                f"max_epochs={max_epochs} differs from the {epochs} epochs of the space, over which the "
                "schedule is laid out: set SearchSpace(epochs=...)."
            )
        oracle = ViTOracle(
            hypermodel.fits_budget,
            objective=objective,
            max_epochs=epochs,
            factor=factor,
            hyperband_iterations=hyperband_iterations,
            seed=seed,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        # Not Hyperband's, which makes an oracle of its own.
        keras_tuner.Tuner.__init__(self, oracle=oracle, hypermodel=hypermodel, **options)

    def save(self):
        if not self._is_worker():
            self.oracle.save()
        write_json(Path(self._get_tuner_fname()), self.get_state())

    def reload(self):
        # The tuner's own file is empty; a cut may have left less than that.
        if not self._is_worker():
            self.oracle.reload()

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        if not self._is_worker():
            self._remove_what_losers_left()

    def _remove_what_losers_left(self):
        best = {trial.trial_id for trial in self.oracle.get_best_trials(KEEP)}
        resumable = self.oracle.resumable()
        ongoing = {trial.trial_id for trial in self.oracle.ongoing_trials.values()}
        for trial_id in self.oracle.trials.keys() - ongoing:
            folder = Path(self.get_trial_dir(trial_id))
            if trial_id not in resumable:
                (folder / CHECKPOINT).unlink(missing_ok=True)
            if trial_id not in best:
                Path(self._get_checkpoint_fname(trial_id)).unlink(missing_ok=True)

    def run_trial(self, trial, *fit_args, **fit_kwargs):
        values = trial.hyperparameters.values
        promoted = values.get("tuner/trial_id")
        state = TrialState(
            save_to=Path(self.get_trial_dir(trial.trial_id)),
            restore_from=Path(self.get_trial_dir(promoted)) if promoted else None,
        )
        given = list(fit_kwargs.pop("callbacks", None) or [])
        return super().run_trial(trial, *fit_args, callbacks=[state, *given], **fit_kwargs)

    def _build_hypermodel(self, hp):
        # Not Hyperband's, which loads the weights of the best epoch: TrialState brings the last one back.
        return keras_tuner.Tuner._build_hypermodel(self, hp)


class TrialState(keras.callbacks.Callback):
    """Brings back what a promoted trial had at its end, and keeps what this one has.

    Args:
        save_to: folder of this trial.
        restore_from: folder of the trial that is promoted, or `None`.
    """

    def __init__(self, save_to: Path, restore_from: Path | None = None):
        super().__init__()
        self.save_to = save_to
        self.restore_from = restore_from

    def __deepcopy__(self, memo):  # KerasTuner copies callbacks for each execution
        return TrialState(self.save_to, self.restore_from)

    def on_train_begin(self, logs=None):
        if self.restore_from is not None and not restore_checkpoint(self.restore_from, self.model):
            raise InputError(f"{self.restore_from} has lost the state of its trial: run it again.")

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.params["epochs"]:
            save_checkpoint(self.save_to, self.model, [{"epoch": epoch + 1}])
