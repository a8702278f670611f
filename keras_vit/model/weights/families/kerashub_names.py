"""Where KerasHub has the parts of its ViT, DeiT and DINOv2: the names that Keras gives layers by class."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from keras_vit.errors import InputError

Tensors = Mapping[str, np.ndarray]
BACKBONE = re.compile(r"layers/[a-z0-9_]*_backbone/")
"""Before the names of the backbone in a `.keras` file of a classifier."""
TASK = "task/"


@dataclass(frozen=True)
class Kind:
    """Where the parts of a backbone stand.

    Args:
        embedding: the layer with the tokens and the positions.
        patches: the convolution.
        blocks: what stands before the number of a block; the first block has none.
        norms, attention, scales, mlps: the layers of a block; the MLP may be one pair or another.
        norm: the last layer normalisation.
    """

    embedding: str
    patches: str
    blocks: str
    norms: tuple[str, str]
    attention: str
    scales: tuple[str, str]
    mlps: tuple[tuple[str, str], ...]
    norm: str


VIT = Kind(
    embedding="layers/vi_t_patching_and_embedding",
    patches="layers/vi_t_patching_and_embedding/patch_embedding",
    blocks="layers/vi_t_encoder/encoder_layers/vi_t_encoder_block",
    norms=("layer_norm_1", "layer_norm_2"),
    attention="mha",
    scales=("", ""),
    mlps=(("mlp/dense_1", "mlp/dense_2"),),
    norm="layers/vi_t_encoder/layer_norm",
)
DEIT = Kind(
    embedding="layers/dei_t_embeddings",
    patches="layers/dei_t_embeddings/patch_embedding",
    blocks="layers/dei_t_encoder/encoder_layers/dei_t_encoder_block",
    norms=("layer_norm_1", "layer_norm_2"),
    attention="mha",
    scales=("", ""),
    mlps=(("mlp/dense", "output_layer/dense"),),
    norm="layers/dei_t_encoder/layer_norm",
)
DINOV2 = Kind(
    embedding="layers/dinov2_embedding",
    patches="layers/dinov2_embedding/patch_embeddings/projection",
    blocks="layers/dinov2_encoder/layers/dinov2_layer",
    norms=("norm1", "norm2"),
    attention="attention/attention",
    scales=("layer_scale1", "layer_scale2"),
    mlps=(("mlp/fc1", "mlp/fc2"), ("mlp/weights_in", "mlp/weights_out")),
    norm="layers/layer_normalization",
)
KINDS = (VIT, DEIT, DINOV2)
GATED = DINOV2.mlps[1]


def kind_of(names: Iterable[str]) -> Kind | None:
    """The backbone whose blocks are among the names; `None` if there is none."""
    names = list(names)
    return next((kind for kind in KINDS if any(name.startswith(kind.blocks) for name in names)), None)


def preset_names(tensors: Tensors) -> dict[str, str]:
    """Name as in a preset -> name in the file.

    In a `.keras` file, the layers of the classifier stand beside the backbone.
    """
    whole = any(BACKBONE.match(name) for name in tensors)
    named = {}
    for name in tensors:
        inside = BACKBONE.match(name)
        if inside:
            named["layers/" + name[inside.end() + len("layers/") :]] = name
        else:
            named[TASK + name if whole else name] = name
    return named


@dataclass(frozen=True)
class Parts:
    """Names of the tokens before the patches, class token first, and of the position table."""

    tokens: tuple[str, ...]
    table: str


def parts_of(kind: Kind, tensors: Tensors, what: str) -> Parts:
    """The tokens and the table of a file.

    Raises:
        InputError: some are missing.
    """
    own = sorted(name for name in tensors if re.fullmatch(rf"{kind.embedding}/vars/\d+", name))
    if kind is VIT:
        table = f"{kind.embedding}/position_embedding/vars/0"
        found = Parts(tuple(own), table)
        complete = table in tensors and len(own) < 2
    elif kind is DEIT:  # a mask token may come first
        found = Parts(tuple(own[-3:-1]), own[-1] if own else "")
        complete = len(own) >= 3
    else:  # class token, mask token (2 axes), registers; then the table for its images, and the first table
        found = Parts(tuple(name for name in own[:-2] if tensors[name].ndim == 3), own[-2] if own[1:] else "")
        complete = len(own) >= 3
    if not complete:
        raise InputError(f"{what} has {len(own)} tokens and tables in {kind.embedding}: it is incomplete.")
    return found


def depth_of(kind: Kind, tensors: Tensors) -> int:
    """Number of blocks."""
    pattern = re.compile(rf"{kind.blocks}(?:_(\d+))?/")
    return max(int(match[1] or 0) for name in tensors if (match := pattern.match(name))) + 1


def mlp_of(kind: Kind, tensors: Tensors) -> tuple[str, str]:
    """Names of the two layers of the MLP in a block."""
    return next((mlp for mlp in kind.mlps if f"{kind.blocks}/{mlp[0]}/vars/0" in tensors), kind.mlps[0])


def heads_of(tensors: Tensors) -> list[str]:
    """Names of the dense layers of the classifier: the last one, with a hidden one before it or without."""
    pattern = re.compile(rf"({TASK}layers/dense(?:_(\d+))?)/vars/0")
    found = {int(match[2] or 0): match[1] for name in tensors if (match := pattern.fullmatch(name))}
    return [found[number] for number in sorted(found)][-2:]
