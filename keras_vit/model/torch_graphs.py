"""Graphs of the forward pass in training, for torch: exported once per shape of a batch, and compiled."""

import contextlib
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch

from keras_vit.cache import TORCH_GRAPHS, cache_folder, hash_of
from keras_vit.errors import first_line
from keras_vit.model.layers.torch_masks import Draw, draw_mask, mask_by, masks_from
from keras_vit.processor import kind_of_processor
from keras_vit.text import say

FOLDER = "TORCHINDUCTOR_CACHE_DIR"
MOST_GRAPHS = 4
"""Batches of more shapes than this have no graph: each would take a minute."""
MOST_BYTES = 512 * 2**20
"""Of compiled graphs in the cache folder."""
LARGEST_DIFFERENCE, IN_HALF_PRECISION = 1e-3, 0.1
"""Of the gradients of a compiled graph, relative to the plain ones; measured 1.3e-6, and 8e-3 in bfloat16."""


class TrainingGraphs:
    """The forward pass of a model in training, by the graph for the batch at hand.

    The first batch of `fit`, and a larger one, gets a graph. Smaller ones, such as the last one of an epoch,
    run without, and so does all of a model for which no graph can be made; one line says why.

    Args:
        model: compiled.
        forward: its forward pass, from a batch to its outputs.
    """

    def __init__(self, model: keras.Model, forward: Callable[..., Any]):
        self.model, self.optimizer, self.forward = model, model.optimizer, forward
        self.graphs: dict[tuple, _Graph] = {}
        self.variables: list = []
        self.fit_begins = True
        self.gave_up = False

    def __call__(self, x: Any) -> Any:
        if isinstance(x, np.ndarray):
            x = keras.ops.convert_to_tensor(x)  # that of train_on_batch
        if self.gave_up or not isinstance(x, torch.Tensor) or x.requires_grad:
            return self.forward(x, training=True)
        if self.fit_begins:
            self.variables = self.model.variables  # Keras searches all layers for them
        variables = self.variables
        values = [variable.value for variable in variables]
        # A graph belongs to these variables, and to those of them that are trained.
        weights = (tuple(map(id, variables)), tuple(value.requires_grad for value in values))
        key = (x.shape, x.dtype, x.device, weights)
        if key not in self.graphs and self._wants_graph(x, weights):
            self._make(key, variables, values, x)
        self.fit_begins = False
        graph = self.graphs.get(key)
        return self.forward(x, training=True) if graph is None else graph(values, x)

    def _wants_graph(self, x: torch.Tensor, weights: tuple) -> bool:
        rows = [key[0][0] for key in self.graphs if key[-1] == weights]
        return len(self.graphs) < MOST_GRAPHS and (self.fit_begins or len(x) > max(rows, default=0))

    def _make(self, key: tuple, variables: list, values: list, x: torch.Tensor) -> None:
        try:
            with _no_warnings():
                self.graphs[key] = _Graph(self.model, self.forward, variables, values, x)
        except Exception as error:  # torch's exporter raises exceptions of many types
            self.gave_up = True
            say(f"{self.model.name} trains without a compiled step: {first_line(error)}")
        else:
            self.graphs[key].compile(values, x, self.model)


class NotOneGraph(Exception):
    """Why a model trains without a compiled step."""


class _Graph:
    """One exported forward pass, from the values of all variables and a batch to the outputs.

    Until it is compiled, and where that fails, it runs as it was exported: the same operations as without a
    graph, to the last bit, without the calls of Keras around them.

    Args:
        model, forward: see `TrainingGraphs`.
        variables, values: those of the model, and their tensors.
        x: a batch.

    Raises:
        NotOneGraph: the graph would lose something that the model does.
        Exception: torch cannot export it.
    """

    def __init__(self, model: keras.Model, forward: Callable, variables: list, values: list, x: torch.Tensor):
        if any(getattr(layer, "remat", False) for layer in model.layers):
            raise NotOneGraph("remat=True, the memory that it saves would be taken again")
        self.draws: list[tuple[Any, Sequence[int]]] = []  # a dropout layer and a shape for each mask

        def run(values: list, x: torch.Tensor, masks: Draw) -> tuple[Any, list, list]:
            state = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state, collect_losses=True) as scope, masks_from(masks):
                outputs = forward(x, training=True)
                return outputs, [scope.get_current_value(one) for one in variables], scope.losses

        def note(layer: Any, shape: Sequence[int]) -> torch.Tensor:
            self.draws.append((layer, shape))
            return mask_by((0, len(self.draws)), shape, layer.rate, x.device)

        with torch.no_grad():
            _, after, losses = run(values, x, note)
        if losses:
            raise NotOneGraph("a layer adds a loss")
        changed = [i for i, (old, new) in enumerate(zip(values, after, strict=True)) if new is not old]

        class Forward(torch.nn.Module):
            def forward(self, values: list, x: torch.Tensor, masks: list) -> tuple[Any, list]:
                left = iter(masks)
                outputs, after, _ = run(values, x, lambda layer, shape: next(left))
                return outputs, [after[i] for i in changed]

        self.assigned = [variables[i] for i in changed]  # the statistics of batch norms
        self.fixed_masks = [
            mask_by((0, i), shape, one.rate, x.device) for i, (one, shape) in enumerate(self.draws)
        ]
        program = torch.export.export(Forward(), (values, x, self.fixed_masks), strict=False)
        # What its guards check is in the key of the graph.
        self.run: Callable[..., Any] = program.module(check_guards=False)

    def __call__(self, values: list, x: torch.Tensor) -> Any:
        masks = [draw_mask(layer, shape) for layer, shape in self.draws]
        outputs, new = self.run(values, x, masks)
        for variable, value in zip(self.assigned, new, strict=True):
            variable.assign(value)
        return outputs

    def compile(self, values: list, x: torch.Tensor, model: keras.Model) -> None:
        """Compiles the graph, if its gradients are then those that it has now."""
        say(f"Compiling the training step of {model.name} for {len(x)} images (kept in {kept_in()}).")
        start = time.perf_counter()
        limit = LARGEST_DIFFERENCE if model.compute_dtype == "float32" else IN_HALF_PRECISION
        try:
            with _no_warnings():
                compiled = torch.compile(self.run, dynamic=False)
                difference = self._difference(compiled, values, x)
        except Exception as error:  # there may be no C++ compiler, for example
            say(f"This failed, so it runs without: {first_line(error)}")
            return
        if not difference <= limit:
            say(f"Its gradients differ by {difference:.1g} from the plain ones, so it is not used.")
            return
        say(f"This took {time.perf_counter() - start:.0f} s.")
        self.run = compiled

    def _difference(self, compiled: Callable, values: list, x: torch.Tensor) -> float:
        trained = [value for value in values if value.requires_grad]

        def flat(run: Callable) -> torch.Tensor:
            outputs = keras.tree.flatten(run(values, x, self.fixed_masks)[0])
            found = torch.autograd.grad([one.sum() for one in outputs], trained, allow_unused=True)
            return torch.cat([one.reshape(-1).float() for one in (*outputs, *found) if one is not None])

        ours, plain = flat(compiled), flat(self.run)
        return float((ours - plain).norm() / plain.norm())


def kept_in() -> str:
    """The folder in which torch keeps compiled graphs for later processes, from now on.

    That of the user; by default one in the cache folder of this package, where torch itself takes a temporary
    one. Code for another processor could end the process, so each kind of processor has its own folder.
    """
    folder = os.environ.get(FOLDER, "")
    if not folder or folder.startswith(os.path.join(tempfile.gettempdir(), "torchinductor_")):
        folder = str(cache_folder() / TORCH_GRAPHS / hash_of(*kind_of_processor())[:16])
        os.environ[FOLDER] = folder
    _make_room(cache_folder() / TORCH_GRAPHS)
    return folder


def _make_room(folder: Path) -> None:
    """Empties the folder of all compiled graphs where it is too large; it takes 10 MB per model."""
    with contextlib.suppress(OSError):
        if sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) > MOST_BYTES:
            shutil.rmtree(folder)


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
