"""The model class that gives the same results on several devices as on one."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_vit.distribution.engine import current_distribution
from keras_vit.errors import InputError


def _like(method: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a method the signature of Keras's, by position too, whatever its version takes.

    The method gets by name what the user gave, and Keras's default of what it asks for itself.
    """
    signature = inspect.signature(method)

    def decorate(own: Callable[..., Any]) -> Callable[..., Any]:
        asked = list(inspect.signature(own).parameters)[1:-1]

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            given = signature.bind(self, *args, **kwargs).arguments
            given.pop("self")
            more = given.pop("kwargs", {})
            for name in asked:
                given.setdefault(name, signature.parameters[name].default)
            return own(self, **given, **more)

        return call

    return decorate


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

    @_like(keras.Model.compile)
    def compile(self, optimizer, loss, auto_scale_loss, **arguments):
        self._check_scope()
        with self.distribution.scope():
            optimizer = keras.optimizers.get(optimizer)
            if auto_scale_loss and self.dtype_policy.name == "mixed_float16" and optimizer is not None:
                optimizer = _scaled(optimizer)  # as Keras would, after the check of `compile`
            arguments = self.distribution.check_compile(
                self, {"optimizer": optimizer, "loss": loss, "auto_scale_loss": False, **arguments}
            )
            super().compile(**arguments)
            self.distribution.prepare_optimizer(self)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and "optimizer" not in config:  # Keras takes it out when it writes an .h5 file
            config["optimizer"] = keras.saving.serialize_keras_object(self.optimizer)
        return config

    def compile_from_config(self, config):
        # Keras leaves it out for models with a `compile` of their own.
        arguments = keras.saving.deserialize_keras_object(config)
        self.compile(**arguments, auto_scale_loss=False)  # the optimizer is as it was
        if self.optimizer is not None and self.built:
            with self.distribution.scope():
                self.optimizer.build(self.trainable_variables)  # a file has its state

    @_like(keras.Model.fit)
    def fit(self, x, y, batch_size, epochs, **arguments):
        self._check_scope()
        given = {"x": x, "y": y, "batch_size": batch_size, "epochs": epochs, **arguments}
        arguments = self.distribution.fit_arguments(self, given)
        with self.distribution.scope():
            if self.compiled and self.optimizer and not self.optimizer.built:
                # In the first step it would be too late: TensorFlow traces a step again that makes variables.
                self.optimizer.build(self.trainable_variables)
            return super().fit(**arguments)

    @_like(keras.Model.evaluate)
    def evaluate(self, x, y, batch_size, **arguments):
        self._check_scope()
        with self.distribution.scope(), self.distribution.evaluating():
            given = {"x": x, "y": y, "batch_size": batch_size, **arguments}
            return super().evaluate(**self.distribution.evaluate_arguments(given))

    @_like(keras.Model.predict)
    def predict(self, x, batch_size, **arguments):
        self._check_scope()
        with self.distribution.scope(), self.distribution.evaluating():
            return self.distribution.predict(self, super().predict, x, batch_size=batch_size, **arguments)

    def get_weights(self):
        return self.distribution.values(self.weights)

    @functools.wraps(keras.Model.train_step)
    def train_step(self, *args, **kwargs):
        return self.distribution.step_logs(super().train_step(*args, **kwargs))

    @functools.wraps(keras.Model.test_step)
    def test_step(self, *args, **kwargs):
        return self.distribution.step_logs(super().test_step(*args, **kwargs))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training=training)
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


def _scaled(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")
