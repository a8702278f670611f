"""What a ViT is, as plain values: every argument, its help and its checks, and the table of named sizes.

Nothing here imports Keras: the command line, the cost of a model and the search read it first.
"""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from keras_vit.errors import InputError
from keras_vit.model.arguments import only, plain
from keras_vit.validation import Count, Shape, hints, validated

Stem = Literal["linear", "conv", "conv-pool"]
Position = Literal["learned", "sincos2d"]
Pooling = Literal["token", "gap", "map", "token+gap", "all", "token+distilled"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "swiglu"]
FinalNorm = Literal["tokens", "pooled", "none"]
HeadActivation = Literal["gelu", "tanh"]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A share of values, or a chance, that is never all."""
Epsilon = Annotated[float, Field(gt=0.0, le=1e-2)]
"""What a layer normalisation adds to the variance."""

NORM_EPSILON = 1e-6
"""Of the layer normalisations by default, as in the code of Dosovitskiy et al. 2020 and in timm."""

STEMS, POSITIONS, POOLINGS, ACTIVATIONS = map(get_args, (Stem, Position, Pooling, Activation))


@validated
class ViTConfig:
    """A Vision Transformer: every argument of `ViT` that says what it computes.

    Raises:
        InputError: an argument is not one of the allowed values, or sizes do not divide.
    """

    image_shape: Shape
    """(height, width, channels); patch_size divides height and width"""
    num_classes: Annotated[int, Field(ge=0)]
    """number of logits; 0 for a model without a head, which returns what the head would see"""
    patch_size: Count
    """side of a patch in pixels"""
    dim: Count
    """width of a token; num_heads divides it, unless head_dim is given"""
    depth: Count
    """number of encoder blocks"""
    num_heads: Count
    """attention heads per block"""
    mlp_dim: Count | None = None
    """width of a block's MLP; by default 4 * dim"""
    head_dim: Count | None = None
    """width of an attention head; by default dim / num_heads"""
    stem: Stem = "linear"
    """one linear projection of each patch; convolutions that halve the image (conv); or convolutions of
    all pixels, each with a maximum that halves the image (conv-pool)"""
    num_registers: Annotated[int, Field(ge=0)] = 0
    """register tokens: free tokens beside those of the patches"""
    position: Position = "learned"
    """position embedding: a learned table, or the fixed one of sines and cosines"""
    pooling: Pooling = "token"
    """what the head sees: the class token, the mean of the patch tokens (gap), attention pooling of the patch
    tokens (map), the class token beside the mean of the patch tokens (token+gap), the mean of all tokens
    (all), or the class token beside a distillation token (token+distilled)"""
    head_hidden_dim: Count | None = None
    """width of a hidden layer in the head; by default the head is linear"""
    qkv_bias: bool = True
    """a bias in the projection to queries, keys and values"""
    qk_norm: bool = False
    """layer normalisation of queries and keys, which keeps large models stable"""
    activation: Activation = "gelu"
    """of the MLP: the exact GELU, GELU by tanh, GELU by a sigmoid (quick_gelu), ReLU, SiLU, or a gated unit
    (swiglu)"""
    dropout_rate: Rate = 0.0
    """dropout on the embedded tokens, on the branches of the blocks, and in the head"""
    attention_dropout_rate: Rate = 0.0
    """dropout on the attention; above 0 it turns fused attention off in training"""
    drop_path_rate: Rate = 0.0
    """stochastic depth: the chance that an image skips a branch of the last block in training"""
    layer_scale: float | None = None
    """first value of LayerScale, such as 1e-5; by default there is none"""
    remat: bool = False
    """compute the blocks again in the backward pass, which saves memory and costs time"""
    norm_epsilon: Epsilon = NORM_EPSILON
    """what every layer normalisation adds to the variance"""
    pre_norm: bool = False
    """layer normalisation of the tokens before the first block, as in CLIP"""
    final_norm: FinalNorm = "tokens"
    """where the last layer normalisation stands: on the tokens, on the pooled vector, or nowhere"""
    patch_bias: bool = True
    """a bias in the linear projection of the patches"""
    patch_norm: bool = False
    """layer normalisation before and after the linear projection of the patches, as in vit-pytorch"""
    projection_bias: bool = True
    """a bias in the output projection of the attention"""
    mlp_bias: bool = True
    """biases in the two layers of the MLP"""
    head_activation: HeadActivation = "gelu"
    """of the hidden layer of the head"""
    class_token: bool | None = None
    """a class token; by default there is one if the pooling needs it"""
    class_position: bool = True
    """a row for the class token, and for the distillation token, in the learned position table"""

    def __post_init__(self):
        check_grid(self.image_shape, self.patch_size)
        check_heads(self.dim, self.num_heads, self.head_dim)
        if self.pooling == "map":
            check_pool_heads(self.dim, self.num_heads)
        if self.pooling.startswith("token") and self.class_token is False:
            raise InputError(f'pooling="{self.pooling}" needs a class token. Received: class_token=False')
        check_patch_options(self.stem, self.patch_bias, self.patch_norm)
        if self.stem != "linear":
            check_conv_stem(self.dim, self.patch_size, self.stem)
        if self.position == "sincos2d":
            check_sincos2d(self.dim)
        if self.remat:
            check_remat(self.dropout_rate, self.attention_dropout_rate)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the patches."""
        height, width, _ = self.image_shape
        return height // self.patch_size, width // self.patch_size

    @property
    def mlp_width(self) -> int:
        """`mlp_dim`, or its default."""
        return self.mlp_dim or 4 * self.dim

    @property
    def use_cls(self) -> bool:
        """Whether there is a class token."""
        return self.pooling.startswith("token") if self.class_token is None else self.class_token

    @property
    def use_distilled(self) -> bool:
        """Whether there is a distillation token."""
        return self.pooling == "token+distilled"

    @property
    def num_first_tokens(self) -> int:
        """Number of tokens before those of the patches: class token, distillation token, registers."""
        return self.use_cls + self.use_distilled + self.num_registers

    @property
    def normalises_tokens(self) -> bool:
        """Whether the last layer normalisation is one of tokens; that of a pooled class token is too."""
        return self.final_norm == "tokens" or (self.final_norm == "pooled" and self.pooling == "token")

    @property
    def feature_width(self) -> int:
        """Width of what the head sees."""
        return 2 * self.dim if self.pooling in ("token+gap", "token+distilled") else self.dim

    @property
    def pool_activation(self) -> Activation:
        """Of the MLP of attention pooling: that of the blocks. No published model has a gated one there."""
        return "gelu" if self.activation == "swiglu" else self.activation


# The rules that a layer checks too, where it stands alone.


def check_fields(**values: Any) -> None:
    """Checks arguments of a layer as `ViTConfig` checks its fields of the same names.

    Example:
        >>> check_fields(num_heads=0)
        InputError: num_heads must be 1 or more. Received: num_heads=0
    """
    for name, value in values.items():
        check_as(name, **{name: value})


def check_as(field: str, **argument: Any) -> None:
    """Checks an argument of a layer as `ViTConfig` checks a field of another name.

    Example:
        >>> check_as("position", kind="none")
        InputError: kind must be one of 'learned', 'sincos2d'. Received: kind='none'
    """
    ((name, value),) = argument.items()
    only(name, hints(ViTConfig)[field])(**{name: plain(value)})


def patch_sides(patch_size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a patch, from its side or the two."""
    height, width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    return height, width


def check_grid(image_shape: Sequence[Any], patch_size: int | Sequence[int]) -> None:
    """Refuses sides that patches do not divide; those that are not known, such as `None`, pass."""
    height, width = image_shape[:2]
    sides = zip((height, width), patch_sides(patch_size), strict=True)
    if any(isinstance(side, int) and side % of for side, of in sides):
        raise InputError(
            "patch_size must divide the height and the width of the image. "
            f"Received: patch_size={patch_size}, image {height}x{width}"
        )


def check_heads(dim: int, num_heads: int, head_dim: int | None = None) -> None:
    if head_dim is None and dim % num_heads:
        raise InputError(
            f"num_heads must divide dim, unless head_dim is given. Received: num_heads={num_heads}, dim={dim}"
        )


def check_pool_heads(dim: int, num_heads: int) -> None:
    if dim % num_heads:
        raise InputError(
            f"num_heads must divide dim in attention pooling. Received: num_heads={num_heads}, dim={dim}"
        )


def check_patch_options(stem: str, patch_bias: bool, patch_norm: bool) -> None:
    if stem != "linear" and (patch_norm or not patch_bias):
        raise InputError(
            'patch_norm=True and patch_bias=False are for stem="linear". '
            f'Received: stem="{stem}", patch_bias={patch_bias}, patch_norm={patch_norm}'
        )


def check_conv_stem(dim: int, patch_size: int, stem: str = "conv") -> None:
    if patch_size < 2 or patch_size & (patch_size - 1):
        raise InputError(
            f'stem="{stem}" halves the image at each layer, so patch_size must be 2, 4, 8, 16, ... '
            f"Received: patch_size={patch_size}"
        )
    if dim % patch_size:
        raise InputError(
            f'stem="{stem}" with patch_size={patch_size} needs a dim that {patch_size} divides. '
            f"Received: dim={dim}"
        )


def conv_stem_widths(dim: int, patch_size: int, stem: str = "conv") -> list[int]:
    """Filters of each convolution of the stem, the last of which has `dim`: "conv" doubles up to `dim / 4`
    before it, "conv-pool" up to `dim / 2`."""
    check_conv_stem(dim, patch_size, stem)
    count = patch_size.bit_length() - 1
    first = count if stem == "conv" else count - 1
    return [dim // 2 ** (first - i) for i in range(count - 1)] + [dim]


def check_sincos2d(dim: int) -> None:
    if dim % 4:
        raise InputError(f'"sincos2d" needs a dim that 4 divides. Received: dim={dim}')


def check_remat(dropout_rate: float, attention_dropout_rate: float) -> None:
    if dropout_rate or attention_dropout_rate:
        raise InputError(
            "remat=True computes a branch twice, and dropout inside it would be drawn twice: use "
            f"drop_path_rate instead. Received: dropout_rate={dropout_rate}, "
            f"attention_dropout_rate={attention_dropout_rate}"
        )


# Named sizes.


@dataclass(frozen=True)
class Size:
    """A named size.

    Args:
        arguments: of `ViTConfig`, without those that the images and the patch size decide.
        image_size: side in pixels that it is used at by default.
        channels: 1 (gray) or 3 (RGB) by default.
    """

    arguments: Mapping[str, Any]
    image_size: int = 224
    channels: Literal[1, 3] = 3


# Ti Touvron et al. 2021 (https://arxiv.org/abs/2012.12877, there "tiny"); S Steiner et al. 2021
# (https://arxiv.org/abs/2106.10270); B, L, H Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929);
# g Zhai et al. 2021 (https://arxiv.org/abs/2106.04560). "defect" is the study of 1,800 gray steel images that
# this package began with; "defect-conv" has a stem of convolutions and heads of dim / num_heads instead:
# fewer parameters, and twelve points better. "defect-pool" is for the drawn defects, whose marks are smaller
# than a pixel of 28: convolutions at all of 56 pixels, and two blocks.
SIZES: dict[str, Size] = {
    "Ti": Size(dict(dim=192, depth=12, num_heads=3, mlp_dim=768)),
    "S": Size(dict(dim=384, depth=12, num_heads=6, mlp_dim=1536)),
    "B": Size(dict(dim=768, depth=12, num_heads=12, mlp_dim=3072)),
    "L": Size(dict(dim=1024, depth=24, num_heads=16, mlp_dim=4096)),
    "H": Size(dict(dim=1280, depth=32, num_heads=16, mlp_dim=5120)),
    "g": Size(dict(dim=1408, depth=40, num_heads=16, mlp_dim=6144)),
    "defect": Size(
        dict(
            dim=64,
            depth=6,
            num_heads=4,
            head_dim=64,
            mlp_dim=128,
            qkv_bias=False,
            head_hidden_dim=128,
            dropout_rate=0.1,
        ),
        image_size=28,
        channels=1,
    ),
    "defect-conv": Size(
        dict(dim=64, depth=6, num_heads=4, mlp_dim=128, qkv_bias=False, head_hidden_dim=128, stem="conv"),
        image_size=28,
        channels=1,
    ),
    "defect-pool": Size(
        dict(
            dim=64, depth=2, num_heads=4, mlp_dim=128, qkv_bias=False, head_hidden_dim=128, stem="conv-pool"
        ),
        image_size=56,
        channels=1,
    ),
}

CHANGEABLE = tuple(
    field.name
    for field in dataclasses.fields(ViTConfig)  # type: ignore[arg-type]
    if field.name not in ("image_shape", "num_classes", "patch_size")
)
"""The arguments that a size decides and a user may change: all but those of the images and of the name."""


def named_size(variant: str) -> Size:
    """The size that a name such as `"B/16"` stands for.

    Args:
        variant: size, slash, patch size in pixels.

    Raises:
        InputError: there is no such size, or no patch size after the slash.
    """
    size, _, patch_size = str(variant).partition("/")
    if size not in SIZES or not patch_size.isdecimal() or int(patch_size) < 1:
        raise InputError(
            f"The model must be a size and a patch size, such as B/16; sizes are {', '.join(SIZES)}. "
            f"Received: {variant!r}"
        )
    return SIZES[size]


def variant_arguments(variant: str) -> dict[str, Any]:
    """The arguments of `ViTConfig` that a name such as `"B/16"` stands for; arguments as `named_size`.

    Returns:
        A new dict, without image_shape and num_classes.
    """
    return {**named_size(variant).arguments, "patch_size": int(variant.partition("/")[2])}


def default_image_size(variant: str) -> int:
    """Side in pixels that a variant is used at by default."""
    return named_size(variant).image_size


def default_channels(variant: str) -> int:
    """1 (gray) or 3 (RGB), what a variant takes by default."""
    return named_size(variant).channels


def options_of(layer: type, config: ViTConfig) -> dict[str, Any]:
    """The arguments of a layer that are in the config by the same names."""
    names = inspect.signature(layer).parameters
    return {name: getattr(config, name) for name in names if hasattr(config, name)}
