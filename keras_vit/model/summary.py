"""The layer table: output shapes, parameters, mult-adds and memory of a model, before it is trained.

`keras_vit.model.cost` says what is counted, and gives the cost of our own layers. The rules for the layers of
Keras are here. A layer that has weights and no rule is unknown: `None`, printed "?", and so is every sum that
it enters.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import singledispatch
from typing import Any

import keras
from keras import layers

from keras_vit.model import cost
from keras_vit.model.cost import Cost
from keras_vit.model.layers import (
    MLP,
    AddCLS,
    AttentionPool,
    EncoderBlock,
    LayerScale,
    PatchEmbed,
    PositionEmbedding,
    SelfAttention,
)

UNKNOWN = "?"
MEGABYTE = 1e6

# Operations outside layers that multiply matrices: `x @ y` in a functional model. We do not guess their cost.
PRODUCTS = {"Conv", "ConvTranspose", "DepthwiseConv", "Dot", "DotProductAttention", "Einsum", "Inner",
            "Matmul", "Outer", "SeparableConv", "Tensordot", "Vdot"}  # fmt: skip

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Row:
    """One layer. The sums of a layer include its parts, which follow it one level deeper.

    Args:
        name: of the layer.
        type: class of the layer.
        output_shape: with the batch size.
        parameters: that no row above has counted.
        mult_adds: per image; `None` if they are unknown.
        depth: 0 for the layers of the model, 1 for their parts, and so on.
        output_bytes: what one image adds to the forward memory; 0 for an output that is not counted.
    """

    name: str
    type: str
    output_shape: Any
    parameters: int
    mult_adds: int | None
    depth: int
    output_bytes: int


@dataclass(frozen=True)
class Totals:
    """The sums of a table. `unknown` names the layers whose mult-adds have no rule. 1 MB is 10^6 bytes."""

    parameters: int
    trainable: int
    non_trainable: int
    mult_adds_per_image: int | None
    mult_adds: int | None
    input_mb: float
    forward_backward_mb: float
    parameters_mb: float
    total_mb: float
    batch_size: int
    unknown: list[str]


@dataclass(frozen=True)
class LayerTable:
    """What `summary` returns: `print` it, or take `rows`, `totals` or the JSON-ready `to_dict()`."""

    model_name: str
    rows: list[Row]
    totals: Totals

    def to_dict(self) -> dict[str, Any]:
        return {"rows": [asdict(row) for row in self.rows], "totals": asdict(self.totals)}

    def __str__(self) -> str:
        head = ("Layer", "Type", "Output shape", "Parameters", "Mult-adds")
        body = [
            (
                _cut("  " * row.depth + row.name, 30),
                _cut(row.type, 20),
                _cut(_shape_text(row.output_shape), 20),
                f"{row.parameters:,}",
                _compact(row.mult_adds),
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        lines = [rule, _line(head, widths), rule, *(_line(row, widths) for row in body), rule]
        totals = self.totals
        unknown = f" (no rule for {', '.join(totals.unknown)})" if totals.unknown else ""
        lines += [
            f"Parameters             {totals.parameters:,} "
            f"({totals.trainable:,} trainable, {totals.non_trainable:,} not)",
            f"Mult-adds per image    {_compact(totals.mult_adds_per_image)}{unknown}",
            f"Mult-adds per batch    {_compact(totals.mult_adds)} (batch size {totals.batch_size})",
            f"Input                  {totals.input_mb:,.2f} MB",
            f"Forward/backward       {totals.forward_backward_mb:,.2f} MB",
            f"Parameters             {totals.parameters_mb:,.2f} MB",
            f"Estimated total        {totals.total_mb:,.2f} MB",
            rule,
        ]
        return "\n".join([self.model_name, *lines])


def summary(model: keras.Model, batch_size: int = 1) -> LayerTable:
    """The layer table of a model.

    Args:
        model: a `ViT`, or any functional or Sequential model that knows its input shape.
        batch_size: images in a batch, for mult-adds and memory.

    Returns:
        The table; `print` it or take its `to_dict()`.

    Raises:
        ValueError: batch_size is below 1, or the model has no graph to read.

    Example:
        >>> model = ViT.from_variant("defect/4", image_shape=(28, 28, 1), num_classes=6)
        >>> summary(model, batch_size=64).totals.mult_adds_per_image
        32315136
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more. Received: batch_size={batch_size}")
    rows = list(_rows(_graph(model), set()))
    rows = [replace(row, output_shape=_with_batch(row.output_shape, batch_size)) for row in rows]
    per_image = _sum(row.mult_adds for row in rows if row.depth == 0)
    outputs = sum(row.output_bytes for row in rows)
    depth_of_next = [row.depth for row in rows[1:]] + [0]
    input_mb = batch_size * sum(_bytes(x.dtype) * _size(x.shape) for x in model.inputs) / MEGABYTE
    forward_backward_mb = 2 * batch_size * outputs / MEGABYTE
    parameters_mb = sum(_bytes(w.dtype) * math.prod(w.shape) for w in model.weights) / MEGABYTE
    totals = Totals(
        parameters=_count(model.weights),
        trainable=_count(model.trainable_weights),
        non_trainable=_count(model.non_trainable_weights),
        mult_adds_per_image=per_image,
        mult_adds=None if per_image is None else per_image * batch_size,
        input_mb=input_mb,
        forward_backward_mb=forward_backward_mb,
        parameters_mb=parameters_mb,
        total_mb=input_mb + forward_backward_mb + parameters_mb,
        batch_size=batch_size,
        unknown=[
            row.name
            for row, next_depth in zip(rows, depth_of_next, strict=True)
            if row.mult_adds is None and next_depth <= row.depth
        ],
    )
    return LayerTable(model.name, rows, totals)


OURS: dict[type[layers.Layer], Callable[..., Cost]] = {
    AddCLS: cost.add_cls,
    AttentionPool: cost.attention_pool,
    EncoderBlock: cost.encoder_block,
    LayerScale: cost.layer_scale,
    MLP: cost.mlp,
    PatchEmbed: cost.patch_embed,
    PositionEmbedding: cost.position_embedding,
    SelfAttention: cost.self_attention,
}
"""Our layers, and the function of each that gives its cost."""


def layer_cost(layer: layers.Layer, input_shape: Shape) -> Cost:
    """The cost of one of our layers, from its arguments and the shape of its input, batch axis included."""
    _size(input_shape)
    count = next(OURS[base] for base in type(layer).__mro__ if base in OURS)
    wanted = list(inspect.signature(count).parameters)[1:]
    return count(input_shape[1:], **{name: getattr(layer, name) for name in wanted})


def children(layer: Any, input_shape: Shape) -> list[tuple[layers.Layer, Shape]]:
    """The layers inside one of ours that have weights, in the order of use, and the input shape of each."""
    if not any(isinstance(layer, kind) for kind in OURS):
        return []
    # Those of PatchEmbed depend on its stem; all others are attributes of the same name.
    inside = layer.parts() if isinstance(layer, PatchEmbed) else {}
    return [
        (inside.get(part.name) or getattr(layer, part.name), (input_shape[0], *part.input_shape))
        for part in layer_cost(layer, input_shape).parts
    ]


@singledispatch
def mult_adds(layer: layers.Layer, input_shape: Shape, output_shape: Shape) -> int | None:
    """Mult-adds per image of the layer itself, without its `children`; `None` if there is no rule for it.

    Other packages can add a rule for a layer of theirs with `@mult_adds.register`.
    """
    return None if layer.weights else 0


@mult_adds.register(layers.Dense)
def _(layer, input_shape, output_shape):
    return _size(output_shape) * input_shape[-1]


@mult_adds.register(layers.Conv1D)
@mult_adds.register(layers.Conv2D)
@mult_adds.register(layers.Conv3D)
def _(layer, input_shape, output_shape):
    # The kernel is (..., channels / groups, filters): every position of the output uses all of it once.
    return _size(output_shape) // layer.filters * math.prod(layer.kernel.shape)


@mult_adds.register(layers.Conv1DTranspose)
@mult_adds.register(layers.Conv2DTranspose)
@mult_adds.register(layers.Conv3DTranspose)
def _(layer, input_shape, output_shape):
    # Here every position of the input does: the kernel is (..., filters, channels).
    return _size(input_shape) // layer.kernel.shape[-1] * math.prod(layer.kernel.shape)


@mult_adds.register(layers.DepthwiseConv1D)
@mult_adds.register(layers.DepthwiseConv2D)
def _(layer, input_shape, output_shape):
    return _size(output_shape) // math.prod(layer.kernel.shape[-2:]) * math.prod(layer.kernel.shape)


for _layer in OURS:
    mult_adds.register(
        _layer, lambda layer, input_shape, output_shape: layer_cost(layer, input_shape).own_mult_adds
    )

# Element by element, or a lookup: nothing to count.
for _layer in (
    layers.BatchNormalization,
    layers.Embedding,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.Normalization,
    layers.PReLU,
    layers.RMSNormalization,
):
    mult_adds.register(_layer, lambda layer, input_shape, output_shape: 0)

# Without weights, but with products of matrices, or with any computation at all.
for _layer in (layers.Attention, layers.AdditiveAttention, layers.Dot, layers.Lambda):
    mult_adds.register(_layer, lambda layer, input_shape, output_shape: None)


def _graph(model: keras.Model) -> keras.Model:
    try:
        # A functional model on the same calls: Sequential has a graph too, but does not show it.
        return keras.Model(model.inputs, model.outputs, name=model.name)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            "summary reads the graph of a functional model, or of a Sequential one with an Input. "
            f"Received: {type(model).__name__} {model.name!r}, which has none"
        ) from error


def _rows(graph: keras.Model, seen: set[int], depth: int = 0) -> Iterator[Row]:
    """One row per call in the graph, in order, each followed by its parts.

    Args:
        graph: a functional model.
        seen: ids of the weights that are counted already; those that are counted here are added.
        depth: of the rows.
    """
    # `layer.input` fails for a layer that another model calls too (the norm, after an extractor was made),
    # so we read the calls that belong to this graph. Keras has no public name for them.
    levels = sorted(graph._nodes_by_depth.items(), reverse=True)
    for node in (node for _, nodes in levels for node in nodes):
        operation, shape = node.operation, _shapes(node.output_tensors)
        if isinstance(operation, layers.Layer) and not isinstance(operation, layers.InputLayer):
            before = _shapes(node.input_tensors)
            # The last block may compute only the tokens that the pooling uses: papers count all of it.
            shape = before if isinstance(operation, EncoderBlock) else shape
            yield from _open(operation, before, shape, depth, seen)
        elif type(operation).__name__ in PRODUCTS:
            yield Row(operation.name, type(operation).__name__, shape, 0, None, depth, 0)


def _open(
    layer: layers.Layer, input_shape: Shape, output_shape: Shape, depth: int, seen: set[int]
) -> list[Row]:
    """The row of a layer, then those of its parts. A shared weight counts where it comes first."""
    new = {id(weight): weight for weight in layer.weights if id(weight) not in seen}
    parts: list[Row] = []
    own: int | None = 0
    if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):
        parts = list(_rows(_graph(layer), seen, depth + 1))
    else:
        for part, shape in children(layer, input_shape):
            parts += _open(part, shape, part.compute_output_shape(shape), depth + 1, seen)
        own = mult_adds(layer, input_shape, output_shape)
    seen.update(new)
    # Other tools see these as bare weights, see keras_vit.model.cost.
    counted = layer.weights and not parts and not isinstance(layer, AddCLS | LayerScale | PositionEmbedding)
    row = Row(
        name=layer.name,
        type=type(layer).__name__,
        output_shape=output_shape,
        parameters=_count(new.values()),
        mult_adds=_sum([own, *(part.mult_adds for part in parts if part.depth == depth + 1)]),
        depth=depth,
        output_bytes=_bytes(layer.compute_dtype) * _size(output_shape) if counted else 0,
    )
    return [row, *parts]


def _shapes(tensors: Sequence[keras.KerasTensor]) -> Any:
    """The shape of a tensor, or a list of those of several."""
    shapes = [tuple(tensor.shape) for tensor in tensors]
    return shapes[0] if len(shapes) == 1 else shapes


def _with_batch(shape: Any, batch_size: int) -> list:
    """A list for JSON, with the batch size in place of `None`."""
    if shape and isinstance(shape[0], list | tuple):
        return [_with_batch(part, batch_size) for part in shape]
    return [batch_size, *shape[1:]]


def _size(shape: Any) -> int:
    """Values per image: the batch axis is left out."""
    if shape and isinstance(shape[0], list | tuple):
        return sum(map(_size, shape))
    if None in shape[1:]:
        raise ValueError(
            f"summary needs every size but that of the batch. Received: a layer of shape {shape}"
        )
    return math.prod(shape[1:])


def _count(weights: Iterable[keras.Variable]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def _bytes(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)  # "bfloat16", "float32"; "bool" has none
    return max(int(bits[0]) // 8, 1) if bits else 1


def _sum(numbers: Iterable[int | None]) -> int | None:
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


def _shape_text(shape: list) -> str:
    return " ".join(map(_shape_text, shape)) if isinstance(shape[0], list) else " x ".join(map(str, shape))


def _compact(number: int | None) -> str:
    """32315136 as "32.32 M"."""
    if number is None:
        return UNKNOWN
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    """The two columns of text aligned to the left, the three of numbers to the right."""
    pairs = list(zip(cells, widths, strict=True))
    return "  ".join([c.ljust(w) for c, w in pairs[:2]] + [c.rjust(w) for c, w in pairs[2:]])
