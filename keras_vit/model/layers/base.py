"""What all layers of this package have in common: their arguments, and the state of the layers inside."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_vit.distribution.synchronised import watch
from keras_vit.errors import InputError
from keras_vit.model.arguments import OF_KERAS, PARTS, checked_init
from keras_vit.model.layers.parts import Waiting, parts_of, resolve_policies, set_parts, waiting_in
from keras_vit.model.random_stream import next_seed, python_random_kept

PACKAGE = __name__.partition(".")[0]


class ViTLayer(layers.Layer):
    """A layer whose arguments are checked, and whose copies are like it.

    - An argument that it does not know is refused, with the nearest one that it does. Whole numbers may come
      as 4.0, or from NumPy.
    - `trainable=False` freezes the layers inside, whenever they are made.
    - A layer inside that is frozen, quantized or has LoRA is so in every copy: `from_config`, `clone_model`,
      saved files, pickles.

    Args:
        name, dtype, trainable, ...: as in `keras.layers.Layer`. With a `keras.dtype_policies.DTypePolicyMap`
            each layer inside has the policy of its path.

    Raises:
        TypeError: an argument is not known.
        ValueError: an argument is not of its type, or not allowed.
    """

    def __init__(self, **kwargs: Any):
        watch()  # Keras's `fit` of a model with this layer asks for its devices
        waiting = Waiting(kwargs.pop(PARTS, None))
        super().__init__(**{**kwargs, "dtype": policy_of(kwargs.get("dtype"))})
        self.waiting = waiting
        # Drawn here: Keras may build while it traces, where nothing can be drawn.
        self._build_seed = next_seed()

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "build" in vars(cls):
            cls.build = _then_set_parts(cls.build)  # type: ignore[method-assign]
        if "__init__" in vars(cls) and cls.__module__.partition(".")[0] == PACKAGE:
            cls.__init__ = checked_init(cls.__init__, (*OF_KERAS, PARTS))  # type: ignore[method-assign]

    def __setattr__(self, name: str, value: Any) -> None:
        made = [] if name.startswith("_") else _layers_in(value)
        if not getattr(self, "trainable", True):
            for layer in made:
                layer.trainable = False  # Keras tells only the layers that are there when it is set
        super().__setattr__(name, value)
        if made:
            _set_waiting(self)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        parts = parts_of(self)
        return {**config, PARTS: parts} if parts else config


def _layers_in(value: Any) -> list[keras.Layer]:
    several = list(value.values()) if isinstance(value, dict) else value
    several = several if isinstance(several, list | tuple) else [several]
    return [one for one in several if isinstance(one, keras.Layer)]


def _then_set_parts(build: Callable[..., None]) -> Callable[..., None]:
    """A `build` that ends with the state that needs layers that are built."""

    @functools.wraps(build)
    def build_and_set(self: ViTLayer, *args: Any, **kwargs: Any) -> None:
        with python_random_kept(self._build_seed):
            build(self, *args, **kwargs)
        resolve_policies(self)
        _set_waiting(self)

    return build_and_set


def _set_waiting(layer: ViTLayer) -> None:
    if waiting_in(layer):
        layer.waiting = Waiting(set_parts(layer, layer.waiting.parts))


def policy_of(dtype: Any) -> keras.dtype_policies.DTypePolicy:
    """The policy of a layer or a model that has layers inside.

    Args:
        dtype: a dtype, a policy, its name or its config; `None` for the global policy.

    Returns:
        A policy. A map is copied: Keras writes into it when a layer is quantized, and if it has no default
        policy of its own also when it is saved.

    Raises:
        InputError: it is the policy of a quantized layer.
    """
    policy = keras.dtype_policies.get(dtype)
    if policy.quantization_mode is not None:
        raise InputError(
            f"dtype={policy.name!r} is for a single layer such as Dense: leave it out, and then call "
            f'quantize("{policy.quantization_mode}") of the model.'
        )
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        copied = {path: policy[path] for path in policy}
        return keras.dtype_policies.DTypePolicyMap(policy.default_policy.name, copied)
    return policy
