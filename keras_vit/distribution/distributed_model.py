"""The model class that gives the same results on several devices as on one."""

import keras

from keras_vit.distribution.engine import current_distribution
from keras_vit.errors import InputError


class DistributedModel(keras.Model):
    """A `keras.Model` that stays on the devices of the `distribute()` it was built in.

    `fit` takes global batches: `batch_size` images for all devices together. `evaluate` and `predict` return
    the results for all images, in every process.

    Raises:
        InputError: from `compile` and `fit`, before the first step, for anything that would differ from one
            device.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.distribution = current_distribution()
        self.distribution.check_model(self)

    def compile(self, optimizer="rmsprop", loss=None, **arguments):
        self._check_scope()
        with self.distribution.scope():
            arguments = self.distribution.check_compile(
                self, {"optimizer": optimizer, "loss": loss, **arguments}
            )
            super().compile(**arguments)
            self.distribution.prepare_optimizer(self)

    def fit(self, x=None, y=None, batch_size=None, epochs=1, **arguments):
        self._check_scope()
        given = {"x": x, "y": y, "batch_size": batch_size, "epochs": epochs, **arguments}
        arguments = self.distribution.fit_arguments(self, given)
        with self.distribution.scope():
            if self.compiled and self.optimizer and not self.optimizer.built:
                # In the first step it would be too late: TensorFlow traces a step again that makes variables.
                self.optimizer.build(self.trainable_variables)
            return super().fit(**arguments)

    def evaluate(self, x=None, y=None, batch_size=None, **arguments):
        self._check_scope()
        with self.distribution.scope(), self.distribution.evaluating():
            given = {"x": x, "y": y, "batch_size": batch_size, **arguments}
            return super().evaluate(**self.distribution.evaluate_arguments(given))

    def predict(self, x, batch_size=None, **arguments):
        self._check_scope()
        with self.distribution.scope(), self.distribution.evaluating():
            return self.distribution.predict(self, super().predict, x, batch_size=batch_size, **arguments)

    def get_weights(self):
        return self.distribution.values(self.weights)

    def train_step(self, *arguments):
        return self.distribution.step_logs(super().train_step(*arguments))

    def test_step(self, *arguments):
        return self.distribution.step_logs(super().test_step(*arguments))

    def compute_loss(self, *args, training=True, **kwargs):
        loss = super().compute_loss(*args, training=training, **kwargs)
        return self.distribution.tracked_loss(loss) if training else loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y, y_pred, sample_weight = self.distribution.gather((y, y_pred, sample_weight))
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Under a TensorFlow strategy Keras builds a model from the mean of the replicas' batches. That fails
        # for unequal batches and for several workers (keras#20585). This model is functional, so it is built.
        pass

    def _check_scope(self):
        current = current_distribution()
        if current.num_devices > 1 and current is not self.distribution:
            raise InputError(
                "This model was built outside of this distribute(), so its weights are not on these devices: "
                "build it inside."
            )
