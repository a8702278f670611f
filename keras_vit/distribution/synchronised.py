"""What makes `fit` of any Keras model give on several devices what it gives on one.

Keras has no place to register this, so `watch` puts a question in front of `keras.Model.fit` and its sisters:
on which devices is this model? For a model on one device the method of Keras runs as if nothing was there.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_vit.distribution.ambient import current_distribution, distribution_for
from keras_vit.distribution.engine import Distribution, built_outside, distribution_of
from keras_vit.distribution.layers_inside import all_layers

Arguments = dict[str, Any]


def watch() -> None:
    """Makes `fit`, `evaluate`, `predict` and their sisters of one batch ask for their devices."""
    for name, around in _ENTRIES.items():
        method = getattr(keras.Model, name)
        if not hasattr(method, "asks_for_devices"):
            setattr(keras.Model, name, _asking(method, around))


def place(model: keras.Model, distribution: Distribution) -> None:
    """Makes a model stay on these devices, and its steps those of all replicas.

    Args:
        model: of any class.
        distribution: the devices that it was built on.

    Raises:
        InputError: it cannot be trained correctly on them.
    """
    distribution.check_model(model)
    model.distribution = distribution
    if distribution.num_devices == 1:
        return
    # In front of methods that the user's class may have. `vars`, because Keras looks at what is set.
    own = vars(model)
    for name, around in _STEPS.items():
        own[name] = functools.partial(around, model, functools.partial(getattr(type(model), name), model))
    if type(model).compile is keras.Model.compile:
        own["compile"] = functools.partial(_compile, model)
    own["get_weights"] = lambda: distribution.values(model.weights)
    # Under a TensorFlow strategy Keras builds a model from the mean of the replicas' batches. That fails
    # for unequal batches and for several workers (keras#20585). `_build` does it before.
    if keras.backend.backend() == "tensorflow":
        own["_maybe_symbolic_build"] = lambda *args, **kwargs: None
    model.train_function = model.test_function = model.predict_function = None


def _asking(method: Callable[..., Any], around: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: keras.Model, *args: Any, **kwargs: Any) -> Any:
        distribution = _devices_of(self)
        if distribution is None:
            return method(self, *args, **kwargs)
        given = signature.bind(self, *args, **kwargs).arguments
        given.pop("self")
        given.update(given.pop("kwargs", {}))
        with distribution.scope():
            _check_compiled(self)
            given = distribution.known_batches(given, is_fit=method.__name__ == "fit")
            _build(self, given)
            return around(self, functools.partial(method, self), given)

    call.asks_for_devices = True  # type: ignore[attr-defined]
    return call


def _devices_of(model: keras.Model) -> Distribution | None:
    """The devices that a model is or must be placed on; `None` for one device."""
    placed = distribution_of(model)
    if placed.num_devices == 1:
        found = distribution_for(model)
        if found is not None:
            place(model, found)
        return found
    current = current_distribution()
    if current.num_devices > 1 and current is not placed:
        raise built_outside(current)
    return placed


def _build(model: keras.Model, given: Arguments) -> None:
    """Builds a model that has no weights yet, its metrics and its optimizer, for any number of rows.

    In the first step it would be too late: TensorFlow traces a step again that makes variables.

    Args:
        given: the arguments of `fit`; of inputs that are neither arrays nor a dataset Keras takes care.
    """
    x = given.get("x")
    spec = model.distribution.spec_of(getattr(x, "batches", x))
    if spec is None:
        spec = tuple(given[name] for name in ("x", "y", "sample_weight") if given.get(name) is not None)
    spec = spec if isinstance(spec, tuple) else (spec,)
    if all(hasattr(one, "shape") and hasattr(one, "dtype") for one in keras.tree.flatten(spec)):
        batch = keras.tree.map_structure(_symbolic, spec)
        if not all(layer.built for layer in all_layers(model)):
            model(batch[0])
            model.distribution.check_model(model)
        if keras.backend.backend() == "tensorflow" and len(batch) > 1 and model.compiled:
            keras.Model._maybe_symbolic_build(model, data_batch=batch)
    if model.built and model.compiled and model.optimizer and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _symbolic(array: Any) -> keras.KerasTensor:
    return keras.KerasTensor((None, *array.shape[1:]), keras.backend.standardize_dtype(array.dtype))


def _check_compiled(model: keras.Model) -> None:
    """Checks what a model was compiled with, and prepares its optimizer, once per `compile`."""
    if not model.compiled or model.optimizer is None or vars(model).get("_prepared") is model.optimizer:
        return
    arguments = {
        "optimizer": model.optimizer,
        "loss": model.loss,
        "jit_compile": model.jit_compile,
        "steps_per_execution": model.steps_per_execution,
    }
    model.distribution.check_compile(model, arguments)
    model.distribution.prepare_optimizer(model)
    vars(model)["_prepared"] = model.optimizer


_COMPILE = inspect.signature(keras.Model.compile)


def _compile(model: keras.Model, *args: Any, **kwargs: Any) -> None:
    bound = _COMPILE.bind(model, *args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    given.pop("self")
    current = current_distribution()
    if current.num_devices > 1 and current is not model.distribution:
        raise built_outside(current)
    with model.distribution.scope():
        keras.Model.compile(model, **model.distribution.check_compile(model, given))
        vars(model).pop("_prepared", None)
        _check_compiled(model)


def _fit(model: keras.Model, keras_fit: Callable[..., Any], given: Arguments) -> Any:
    distribution = model.distribution
    given = distribution.fit_arguments(model, {"x": None, **given})
    for callback in distribution.callbacks(model):
        given["callbacks"] = _with(callback, given.get("callbacks"), model)
    return keras_fit(**given)


def _with(callback: keras.callbacks.Callback, callbacks: Any, model: keras.Model) -> Any:
    """The callbacks of `fit`, in any of its forms, and one more."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callback.set_model(model)
        callbacks.append(callback)
        return callbacks
    return [callback, *keras.tree.flatten(callbacks)] if callbacks else [callback]


def _evaluate(model: keras.Model, keras_evaluate: Callable[..., Any], given: Arguments) -> Any:
    with model.distribution.evaluating():
        given = model.distribution.evaluate_arguments({"x": None, "y": None, **given})
        return keras_evaluate(**given)


def _predict(model: keras.Model, keras_predict: Callable[..., Any], given: Arguments) -> Any:
    with model.distribution.evaluating():
        return model.distribution.predict(model, keras_predict, **given)


def _predict_on_batch(model: keras.Model, keras_predict: Callable[..., Any], given: Arguments) -> Any:
    """Keras under MirroredStrategy returns the rows once per replica."""
    rows = len(keras.tree.flatten(given["x"])[0])
    return keras.Model.predict(model, given["x"], batch_size=max(rows, 1), verbose=0)


def _test_on_batch(model: keras.Model, keras_method: Callable[..., Any], given: Arguments) -> Any:
    with model.distribution.evaluating():
        return keras_method(**given)


def _train_on_batch(model: keras.Model, keras_method: Callable[..., Any], given: Arguments) -> Any:
    model.distribution.before_a_batch(model)
    return keras_method(**given)


def _step(model: keras.Model, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    args = model.distribution.step_arguments(args)
    return model.distribution.step_logs(step(*args, **kwargs))


def _compute_loss(model: keras.Model, compute: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    loss = compute(*args, **kwargs)
    given = dict(zip(("x", "y", "y_pred", "sample_weight", "training"), args, strict=False), **kwargs)
    if not given.get("training", True):
        return loss
    arrays = keras.tree.flatten([given.get(name) for name in ("y_pred", "y", "x")])
    first = next(one for one in arrays if one is not None)
    return model.distribution.tracked_loss(loss, keras.ops.shape(first)[0])


def _compute_metrics(
    model: keras.Model, compute: Callable[..., Any], x: Any, y: Any, y_pred: Any, sample_weight: Any = None
) -> Any:
    y, y_pred, sample_weight = model.distribution.gather((y, y_pred, sample_weight))
    return compute(x, y, y_pred, sample_weight)


_ENTRIES = {
    "fit": _fit,
    "evaluate": _evaluate,
    "predict": _predict,
    "predict_on_batch": _predict_on_batch,
    "test_on_batch": _test_on_batch,
    "train_on_batch": _train_on_batch,
}
_STEPS = {
    "train_step": _step,
    "test_step": _step,
    "compute_loss": _compute_loss,
    "compute_metrics": _compute_metrics,
}
