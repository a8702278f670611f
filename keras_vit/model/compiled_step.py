"""A model whose training steps on torch run as compiled graphs, if it is compiled with `jit_compile=True`.

Keras gives the whole step to `torch.compile`, which breaks this model into 33 graphs and gives up at its
limit of recompilations. Here the forward pass alone is exported to one graph, which is compiled with its
backward pass; the loss, the optimizer, its average of the weights, clipping, accumulation, loss scaling,
metrics and callbacks are those of Keras. A step of `defect/4` takes 0.75 of its time at batch 64, 0.55 at 1.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_vit.distribution import distribution_of
from keras_vit.distribution.distributed_model import DistributedModel


class CompiledStepModel(DistributedModel):
    """A functional model that `fit` and `train_on_batch` train by compiled graphs on torch.

    `evaluate` and `predict`, and on other backends everything, are those of `keras.Model`.
    """

    _training_graphs: Any = None  # a keras_vit.model.torch_graphs.TrainingGraphs
    _in_train_step = False

    def make_train_function(self, force=False):
        if self._training_graphs is not None:
            self._training_graphs.fit_begins = True
        with _plain_steps(self):
            return super().make_train_function(force)

    def make_test_function(self, force=False):
        with _plain_steps(self):
            return super().make_test_function(force)

    def make_predict_function(self, force=False):
        with _plain_steps(self):
            return super().make_predict_function(force)

    if keras.backend.backend() == "torch":  # on JAX, it has another argument

        def train_step(self, data):
            if not (self.jit_compile and distribution_of(self).num_devices == 1):
                return super().train_step(data)
            from keras_vit.model.torch_graphs import TrainingGraphs

            if self._training_graphs is None or self._training_graphs.optimizer is not self.optimizer:
                self._training_graphs = TrainingGraphs(self, super().__call__)  # once per `compile`
            self._in_train_step = True
            try:
                return super().train_step(data)
            finally:
                self._in_train_step = False

    def __call__(self, *args, **kwargs):
        # Not in `call`: there Keras gives copies of the weights in half precision.
        if not (self._in_train_step and len(args) == 1 and kwargs == {"training": True}):
            return super().__call__(*args, **kwargs)
        self._in_train_step = False  # while the graph is made, and for a second call in the same step
        return self._training_graphs(*args)


@contextlib.contextmanager
def _plain_steps(model: keras.Model) -> Iterator[None]:
    """On torch, hides `jit_compile` from Keras, which would compile the Python code of the whole step."""
    wanted = model.jit_compile
    if keras.backend.backend() == "torch":
        model.jit_compile = False
    try:
        yield
    finally:
        model.jit_compile = wanted
