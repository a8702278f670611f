"""The devices in use here: those of `distribute()`, or those that the user has set up with the backend."""

import keras

from keras_vit.distribution.engine import Distribution, entered, known
from keras_vit.distribution.layers_inside import has_our_layer
from keras_vit.errors import InputError

ONE_DEVICE = Distribution()


def current_distribution() -> Distribution:
    """The innermost `distribute()` that has been entered, or else what the user has set up; or one device.

    What the user has set up is TensorFlow's strategy scope, on JAX `keras.distribution.set_distribution`, on
    torch a process group. It is adopted: models do on it what they do inside `distribute()`.

    Raises:
        InputError: it is one that gives wrong numbers under `fit`.
    """
    if entered:
        return entered[-1]
    return adopted() or ONE_DEVICE


def distribution_for(model: keras.Model) -> Distribution | None:
    """The devices that a model of any class must be trained on together; `None` for one device.

    Inside `distribute()` these are its devices. What the user has set up is Keras's own affair, unless the
    model has a layer of this package.

    Args:
        model: a model that nothing is known about yet.

    Raises:
        InputError: the model was built outside of the devices that are in use here, or those that the user
            has set up give wrong numbers.
    """
    if entered:
        found = entered[-1]
    else:
        found = _adopted_for(model)
        if found.num_devices == 1:
            found = next((one for one in known if one.owns(model)), ONE_DEVICE)
    if found.num_devices == 1 or not (found.was_entered or has_our_layer(model)):
        return None
    found.check_home(model)
    return found


def _adopted_for(model: keras.Model) -> Distribution:
    try:
        return adopted(model) or ONE_DEVICE
    except InputError:
        if has_our_layer(model):
            raise
        return ONE_DEVICE  # another model's affair


def adopted(model: keras.Model | None = None) -> Distribution | None:
    """What the user has set up with the backend, if it is more than one device.

    Args:
        model: TensorFlow's models remember the scope that they were built in, so it is also found outside.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        from keras_vit.distribution.jax_engine import adopted_sharding

        return adopted_sharding()
    if keras.distribution.distribution() is not None:
        raise InputError(
            f"keras.distribution does nothing on the {backend} backend, so all would run on one device: use "
            "keras_vit.distribute() instead."
        )
    if backend == "tensorflow":
        from keras_vit.distribution.tensorflow_engine import adopted_strategy

        return adopted_strategy(model)
    if backend == "torch":
        from keras_vit.distribution.torch_engine import adopted_processes

        return adopted_processes()
    return None
