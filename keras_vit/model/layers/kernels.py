"""Layers with kernels inside, which take an initializer, a regularizer and LoRA as Keras's own do."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import layers

from keras_vit.model.layers.base import ViTLayer
from keras_vit.model.layers.parts import layers_inside

Given = str | dict[str, Any] | Callable[..., Any] | None
"""A name, what `serialize` of Keras returns, an object of Keras, or a function."""


class KernelLayer(ViTLayer):
    """A layer with kernels inside, of one initializer and one regularizer.

    A subclass calls `_set_kernels` in its constructor and makes its dense layers with `_dense`.
    """

    def _set_kernels(self, initializer: Given, regularizer: Given) -> None:
        state = random.getstate()
        found = keras.initializers.get(initializer)
        if isinstance(initializer, str):
            # A name stays one: an object gives the same values at every call. The object is only a check of
            # the name, so its seed is not drawn.
            random.setstate(state)
            found = initializer
        self.kernel_initializer = found
        self.kernel_regularizer = keras.regularizers.get(regularizer)

    def _kernel(self, default: str = "glorot_uniform") -> dict[str, Any]:
        """Arguments for one layer with a kernel: an initializer of its own, so that kernels differ."""
        given: Any = self.kernel_initializer or default
        clone = getattr(given, "clone", None)
        return dict(
            kernel_initializer=clone() if clone else given, kernel_regularizer=self.kernel_regularizer
        )

    def _dense(self, width: int, name: str, use_bias: bool = True) -> layers.Dense:
        return layers.Dense(width, use_bias=use_bias, **self._kernel(), dtype=self.dtype_policy, name=name)

    def enable_lora(self, rank: int, lora_alpha: float | None = None) -> None:
        """Gives all kernels inside a low-rank addition, as `keras.layers.Dense.enable_lora` does for one.

        Args:
            rank: of the additions.
            lora_alpha: their factor times the rank; by default the rank.

        Raises:
            ValueError: the layer is not built, is frozen, or has LoRA already.
        """
        if not self.built:
            raise ValueError(f"Build {self.name} before enable_lora, for example by calling it on a batch.")
        for layer in _with_kernel(self):
            layer.enable_lora(rank, lora_alpha=lora_alpha)

    def get_config(self):
        given = self.kernel_initializer
        is_plain = given is None or isinstance(given, str)
        regularizer = self.kernel_regularizer
        return {
            **super().get_config(),
            "kernel_initializer": given if is_plain else keras.initializers.serialize(given),
            "kernel_regularizer": regularizer and keras.regularizers.serialize(regularizer),
        }


def _with_kernel(layer: layers.Layer) -> Iterator[Any]:
    for inner in layers_inside(layer).values():
        if isinstance(inner, layers.Dense | layers.Conv2D):
            yield inner
        else:
            yield from _with_kernel(inner)
