"""Parameters, mult-adds and activation memory of a ViT, without Keras: one function per layer.

What is counted:

- **Mult-adds** are those of matrix products and convolutions, including the two products of an attention.
  Work done element by element (biases, norms, activations, additions) is not counted. The padded border of a
  convolution counts like the rest of its input. Of the last block all tokens count, as in papers, though
  `ViT` computes only those that the pooling uses.
- **Activation memory** is 2 x the outputs of every layer that has weights, once for the forward and once for
  the backward pass. Blocks are opened to their Dense and LayerNorm. `AddCLS`, `PositionEmbedding` and
  `LayerScale` are left out: tools that count modules see them as bare weights, so the figure is the one that
  those tools give for the same model in another framework. It is an estimate for comparing models, not what a
  machine will use.

Shapes are those of one image: the batch axis is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from keras_vit.model.config import (
    Activation,
    Pooling,
    Position,
    Stem,
    ViTConfig,
    check_grid,
    check_heads,
    check_pool_heads,
    conv_stem_widths,
    patch_sides,
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """The cost of one layer. All sums include the parts.

    Args:
        name: of the layer, such as `"qkv"`.
        type: class of the Keras layer, such as `"Dense"`.
        input_shape: per image.
        output_shape: per image.
        parameters: trainable or not.
        mult_adds: per image, forward.
        activations: values per image that count as activation memory of the forward pass.
        parts: the layers inside it that have weights, in the order of use.
    """

    name: str
    type: str
    input_shape: Shape
    output_shape: Shape
    parameters: int = 0
    mult_adds: int = 0
    activations: int = 0
    parts: tuple[Cost, ...] = ()

    @property
    def own_mult_adds(self) -> int:
        """Without those of the parts."""
        return self.mult_adds - sum(part.mult_adds for part in self.parts)


def count_parameters(config: ViTConfig) -> int:
    """All parameters of a ViT, including the moving statistics of a convolutional stem.

    Example:
        >>> count_parameters(ViTConfig((224, 224, 3), 1000, 16, dim=192, depth=12, num_heads=3))
        5717416
    """
    return vit(config).parameters


def count_mult_adds(config: ViTConfig) -> int:
    """Mult-adds of the forward pass of one image."""
    return vit(config).mult_adds


def count_activation_bytes(config: ViTConfig, bytes_per_value: int = 4) -> int:
    """Activation memory of one image, forward and backward, see the top of this file.

    Args:
        config: the ViT.
        bytes_per_value: 4 in float32; 2 in half precision, where the logits stay in float32.
    """
    return 2 * (bytes_per_value * (vit(config).activations - config.num_classes) + 4 * config.num_classes)


def vit(config: ViTConfig) -> Cost:
    """The whole model; its parts are the layers of `ViT` in order, those without weights too."""
    image, dim, mlp_dim = config.image_shape, config.dim, config.mlp_width
    parts = [patch_embed(image, dim, config.patch_size, config.stem, config.patch_bias, config.patch_norm)]

    def tokens() -> Shape:
        return parts[-1].output_shape

    if config.num_first_tokens:
        parts.append(add_cls(tokens(), config.use_cls, config.num_registers, config.use_distilled))
    parts.append(
        position_embedding(
            tokens(),
            config.grid,
            config.position,
            config.use_cls,
            config.use_distilled,
            config.class_position,
        )
    )
    parts.append(weightless("embedding_dropout", "Dropout", tokens()))
    if config.pre_norm:
        parts.append(layer_norm("pre_norm", tokens()))
    block = encoder_block(
        tokens(),
        config.num_heads,
        mlp_dim,
        head_dim=config.head_dim,
        qkv_bias=config.qkv_bias,
        qk_norm=config.qk_norm,
        activation=config.activation,
        layer_scale=config.layer_scale,
        projection_bias=config.projection_bias,
        mlp_bias=config.mlp_bias,
    )
    parts += [replace(block, name=f"block_{i}") for i in range(config.depth)]
    patches = (math.prod(config.grid), dim)
    # The tokens that the pooling uses, of all those after the last block.
    used = {"token": (dim,), "token+distilled": (2, dim), "gap": patches, "map": patches}
    pooled = used.get(config.pooling, tokens())
    if config.final_norm == "tokens":
        parts.append(layer_norm("norm", pooled))
    parts += pool(config.pooling, pooled, patches, config.num_heads, mlp_dim, config.pool_activation)
    features = (config.feature_width,)
    if config.final_norm == "pooled":
        parts.append(layer_norm("norm", features))
    parts += head(features, config)
    return composed("vit", "ViT", image, tokens(), parts)


def pool(
    pooling: Pooling,
    shape: Shape,
    patches: Shape,
    num_heads: int,
    mlp_dim: int,
    activation: Activation,
) -> list[Cost]:
    """The layers from the tokens that the pooling uses to what the head sees."""
    vector, both = patches[-1:], (2 * patches[-1],)
    match pooling:
        case "gap" | "all":
            return [weightless("pool", "GlobalAveragePooling1D", shape, vector)]
        case "map":
            return [attention_pool(patches, num_heads, mlp_dim, activation, name="pool")]
        case "token+gap":
            return [
                weightless("pool", "GlobalAveragePooling1D", patches, vector),
                weightless("pool_both", "Concatenate", both),
            ]
        case "token+distilled":
            return [weightless("pool_both", "Flatten", shape, both)]
    return []


def head(shape: Shape, config: ViTConfig) -> list[Cost]:
    """The layers from what the head sees to the logits."""
    if config.num_classes == 0:
        return [weightless("features", "Activation", shape)]
    parts = []
    if config.head_hidden_dim:
        hidden = (config.head_hidden_dim,)
        parts = [
            dense("head_hidden", shape, config.head_hidden_dim),
            weightless(f"head_{config.head_activation}", "Activation", hidden),
            weightless("head_dropout", "Dropout", hidden),
        ]
        shape = hidden
    return [*parts, dense("head", shape, config.num_classes)]


# Our layers: the arguments are those of the layer, after the shape of its input.


def patch_embed(
    shape: Shape,
    dim: int,
    patch_size: int | tuple[int, int],
    stem: Stem = "linear",
    patch_bias: bool = True,
    patch_norm: bool = False,
    feature_map: bool = False,
    data_format: str = "channels_last",
    name: str = "patch_embed",
) -> Cost:
    if data_format == "channels_first":
        inside = (*shape[1:], shape[0])
        last = patch_embed(inside, dim, patch_size, stem, patch_bias, patch_norm, feature_map, name=name)
        return replace(last, input_shape=shape)
    check_grid(shape, patch_size)
    height, width, channels = shape
    sides = patch_sides(patch_size)
    grid = (height // sides[0], width // sides[1])
    patches = math.prod(grid)
    if stem == "linear":
        cut = (patches, math.prod(sides) * channels)
        parts = [dense("projection", cut, dim, patch_bias)]
        if patch_norm:
            parts = [
                layer_norm("patch_norm", cut),
                *parts,
                layer_norm("embedding_norm", (patches, dim)),
            ]
    else:
        parts, before = [], shape
        for i, filters in enumerate(conv_stem_widths(dim, sides[0], stem)):
            parts.append(conv(f"conv_{i}", before, filters, strides=2 if stem == "conv" else 1))
            before = parts[-1].output_shape
            parts.append(batch_norm(f"batch_norm_{i}", before))
            if stem == "conv-pool":
                before = (before[0] // 2, before[1] // 2, filters)
    return composed(name, "PatchEmbed", shape, (*grid, dim) if feature_map else (patches, dim), parts)


def add_cls(
    shape: Shape,
    use_cls: bool = True,
    num_registers: int = 0,
    use_distilled: bool = False,
    name: str = "add_cls",
) -> Cost:
    tokens, dim = shape
    added = use_cls + use_distilled + num_registers
    return Cost(name, "AddCLS", shape, (added + tokens, dim), added * dim)


def position_embedding(
    shape: Shape,
    grid: tuple[int, int],
    kind: Position = "learned",
    use_cls: bool = True,
    use_distilled: bool = False,
    class_position: bool = True,
    name: str = "position_embedding",
) -> Cost:
    first = use_cls + use_distilled if class_position else 0
    places = first + math.prod(grid) if kind == "learned" else 0
    return Cost(name, "PositionEmbedding", shape, shape, places * shape[-1])


def encoder_block(
    shape: Shape,
    num_heads: int,
    mlp_dim: int,
    head_dim: int | None = None,
    qkv_bias: bool = True,
    qk_norm: bool = False,
    activation: Activation = "gelu",
    layer_scale: float | None = None,
    projection_bias: bool = True,
    mlp_bias: bool = True,
    name: str = "block",
) -> Cost:
    parts = [
        layer_norm("attention_norm", shape),
        self_attention(shape, num_heads, head_dim, qkv_bias, qk_norm, projection_bias),
        layer_norm("mlp_norm", shape),
        mlp(shape, mlp_dim, activation, mlp_bias),
    ]
    scales = 0 if layer_scale is None else 2 * shape[-1]  # one per branch
    return composed(name, "EncoderBlock", shape, shape, parts, parameters=scales)


def self_attention(
    shape: Shape,
    num_heads: int,
    head_dim: int | None = None,
    qkv_bias: bool = True,
    qk_norm: bool = False,
    projection_bias: bool = True,
    name: str = "attention",
) -> Cost:
    tokens, dim = shape
    check_heads(dim, num_heads, head_dim)
    width = head_dim or dim // num_heads
    inner = num_heads * width
    norms = ("query_norm", "key_norm") if qk_norm else ()
    parts = [
        dense("qkv", shape, 3 * inner, qkv_bias),
        *(layer_norm(norm, (tokens, num_heads, width)) for norm in norms),
        dense("projection", (tokens, inner), dim, projection_bias),
    ]
    products = 2 * tokens * tokens * inner
    return composed(name, "SelfAttention", shape, shape, parts, mult_adds=products)


def mlp(
    shape: Shape, mlp_dim: int, activation: Activation = "gelu", mlp_bias: bool = True, name: str = "mlp"
) -> Cost:
    gated = 2 if activation in ("swiglu", "glu") else 1
    parts = [
        dense("expand", shape, gated * mlp_dim, mlp_bias),
        dense("contract", (*shape[:-1], mlp_dim), shape[-1], mlp_bias),
    ]
    return composed(name, "MLP", shape, shape, parts)


def layer_scale(shape: Shape, name: str = "layer_scale") -> Cost:
    return Cost(name, "LayerScale", shape, shape, shape[-1])


def attention_pool(
    shape: Shape,
    num_heads: int,
    mlp_dim: int,
    activation: Activation = "gelu",
    num_prefix_tokens: int = 0,
    name: str = "attention_pool",
) -> Cost:
    tokens, dim = shape
    used = (tokens - num_prefix_tokens, dim)
    check_pool_heads(dim, num_heads)
    one = (1, dim)  # the learned query; a batch computes it once, here each image counts it
    parts = [
        dense("query", one, dim),
        dense("key_value", used, 2 * dim),
        dense("projection", one, dim),
        layer_norm("norm", one),
        mlp(one, mlp_dim, activation),
    ]
    products = 2 * math.prod(used)  # of one query
    return composed(name, "AttentionPool", shape, (dim,), parts, parameters=dim, mult_adds=products)


# Keras's layers, as far as ours are made of them.


def dense(name: str, shape: Shape, units: int, use_bias: bool = True) -> Cost:
    output = (*shape[:-1], units)
    values = math.prod(output)
    parameters = (shape[-1] + use_bias) * units
    return Cost(name, "Dense", shape, output, parameters, shape[-1] * values, values)


def layer_norm(name: str, shape: Shape) -> Cost:
    return Cost(name, "LayerNormalization", shape, shape, 2 * shape[-1], activations=math.prod(shape))


def conv(name: str, shape: Shape, filters: int, strides: int = 2) -> Cost:
    """3x3, padded, without a bias."""
    height, width, channels = shape
    output = (math.ceil(height / strides), math.ceil(width / strides), filters)
    values, kernel = math.prod(output), 3 * 3 * channels
    return Cost(name, "Conv2D", shape, output, kernel * filters, kernel * values, values)


def batch_norm(name: str, shape: Shape) -> Cost:
    return Cost(name, "BatchNorm", shape, shape, 4 * shape[-1], activations=math.prod(shape))


def weightless(name: str, kind: str, shape: Shape, output_shape: Shape | None = None) -> Cost:
    """A layer that costs nothing here: Dropout, pooling by the mean, an activation."""
    return Cost(name, kind, shape, output_shape or shape)


def composed(
    name: str,
    kind: str,
    shape: Shape,
    output_shape: Shape,
    parts: list[Cost],
    parameters: int = 0,
    mult_adds: int = 0,
) -> Cost:
    """A layer made of others.

    Args:
        name: of the layer.
        kind: its class.
        shape: of its input.
        output_shape: of its output.
        parts: the layers inside it.
        parameters: its own, beside those of the parts.
        mult_adds: its own, beside those of the parts.
    """
    return Cost(
        name,
        kind,
        shape,
        output_shape,
        parameters + sum(part.parameters for part in parts),
        mult_adds + sum(part.mult_adds for part in parts),
        sum(part.activations for part in parts),
        tuple(parts),
    )
