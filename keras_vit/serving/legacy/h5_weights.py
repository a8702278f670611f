"""Reads the weights of a Keras 2 Vision Transformer from `.h5` into a `ViT` of the same shape."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_vit.errors import InputError
from keras_vit.model.config import ViTConfig

if TYPE_CHECKING:
    from keras_vit.model.vit import ViT

# From a weight's name in the file to its path in `ViT`. Names that equal ViT's own need no line.
_VIT_KERAS_BLOCK = r"Transformer/encoderblock_(\d+)"
NAMING = (
    # vit-keras 0.1 (https://github.com/faustomorales/vit-keras)
    (r"embedding/(kernel|bias)", r"patch_embed/projection/\1"),
    (r"class_token/cls", r"add_cls/tokens"),
    (r"Transformer/posembed_input/pos_embedding", r"position_embedding/table"),
    (_VIT_KERAS_BLOCK + r"/LayerNorm_0/(gamma|beta)", r"block_\1/attention_norm/\2"),
    (
        _VIT_KERAS_BLOCK + r"/MultiHeadDotProductAttention_1/(query|key|value)/(kernel|bias)",
        r"block_\1/attention/\2/\3",
    ),
    (
        _VIT_KERAS_BLOCK + r"/MultiHeadDotProductAttention_1/out/(kernel|bias)",
        r"block_\1/attention/projection/\2",
    ),
    (_VIT_KERAS_BLOCK + r"/LayerNorm_2/(gamma|beta)", r"block_\1/mlp_norm/\2"),
    (_VIT_KERAS_BLOCK + r"/Dense_0/(kernel|bias)", r"block_\1/mlp/expand/\2"),
    (_VIT_KERAS_BLOCK + r"/Dense_1/(kernel|bias)", r"block_\1/mlp/contract/\2"),
    (r"Transformer/encoder_norm/(gamma|beta)", r"norm/\1"),
    # Keras's own layers in place of layers of this package
    (r"patch_embed/(kernel|bias)", r"patch_embed/projection/\1"),
    (r"position_embedding/(?:\w+/)?embeddings", r"position_embedding/table"),
    (r"(block_\d+/attention)/attention_output/(kernel|bias)", r"\1/projection/\2"),
)
MODEL_GROUP = "top_level_model_weights"  # of a subclassed model: the weights that belong to no layer
SPLIT = re.compile(r"(block_\d+/attention)/(query|key|value)/(kernel|bias)")
QKV = ("query", "key", "value")
KERAS_NAMES = {
    "gelu": ("gelu",),
    "gelu_tanh": (),  # Keras 2 has no name for it, nor for the next
    "quick_gelu": (),
    "relu": ("relu",),
    "silu": ("silu", "swish"),
    "swiglu": ("silu", "swish"),
}
"""Of the activations of `ViT`, in a config of Keras 2."""

# What to do if a weight of the file does not exist in the model.
FIXES = (
    (r"block_\d+/attention/(qkv|query|key|value)/bias", "build the ViT with qkv_bias=True"),
    (r"block_\d+/.*", "build the ViT with the depth and the options of the file"),
    (r"position_embedding/.*", 'build the ViT with position="learned"'),
    (r"add_cls/.*", 'build the ViT with pooling="token"'),
    (r"head_hidden/.*", "build the ViT with the head_hidden_dim of the file"),
    (
        r"pre_logits/.*",
        'build the ViT with the head_hidden_dim of the file and head_activation="tanh", and give '
        'names={"pre_logits": "head_hidden"}',
    ),
    (r".*", "give its name in ViT by names={...}"),
)


def load_h5_weights(model: "ViT", path: str | Path, names: Mapping[str, str] | None = None) -> None:
    """Fills a `ViT` with the weights of a Keras 2 Vision Transformer from `.h5`.

    The file is one that `model.save_weights("x.h5")` or `model.save("x.h5")` wrote in Keras 2. Each weight of
    the file must match one weight of the model, in the same shape, and the other way round; otherwise nothing
    changes. Known are the names of vit-keras 0.1 (https://github.com/faustomorales/vit-keras) and those of
    ViT itself (`[w.path for w in model.weights]`), also with Keras's own layers in place of this package's: a
    `Conv2D` or `Dense` named `patch_embed`, a layer `position_embedding` that holds an `Embedding`, and a
    `MultiHeadAttention` named `block_0/attention`, whose query, key and value are concatenated. Give other
    names by `names`.

    The file does not say what is computed with the weights. ViT's blocks normalise first, with epsilon 1e-6;
    GELU is exact; a fused projection gives all queries, then all keys, then all values, each head by head;
    pixels are in [-1, 1]. If the file holds the model's config (`model.save`), epsilons and activations are
    checked. Otherwise compare the logits of one batch.

    Args:
        model: a `keras_vit.ViT`.
        path: the `.h5` file.
        names: from the name of a layer or weight in the file to its name in ViT, for layers with automatic
            names: `{"dense": "patch_embed/projection", "layer_normalization": "block_0/attention_norm"}`.

    Raises:
        InputError: the file cannot be read or has another layout; a weight is missing in the file or in the
            model, or has another shape; a layer computes another function than ViT's.
    """
    import h5py

    from keras_vit.model.vit import ViT

    path = Path(path)
    if not isinstance(model, ViT):
        raise InputError(f"model must be a keras_vit.ViT. Received: {type(model).__name__}")
    if not path.is_file():
        raise InputError(f"There is no file {path}: give the .h5 file that Keras 2 saved.")
    try:
        with h5py.File(path) as file:
            _check_functions(file, path, model)
            placed = _place(_datasets(file, path), path, model, names or {})
            values = {weight.path: _value(placed[weight.path], weight.shape) for weight in model.weights}
    except InputError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:  # h5py raises these for a damaged file
        raise InputError(f"{path} cannot be read as HDF5 ({error}): save it again in Keras 2.") from error
    for weight in model.weights:
        weight.assign(values[weight.path])


def _datasets(file, path):
    """Name of a weight, without `:0` -> its dataset, not read yet."""
    root = file.get("model_weights", file)
    layers = _texts(root, "layer_names")
    if not layers:
        raise InputError(
            f"{path} has no names of layers: save it in Keras 2 by model.save_weights or model.save, with a "
            "name that ends in .h5 and not in .weights.h5."
        )
    if MODEL_GROUP in root:
        layers = [*layers, MODEL_GROUP]
    found = {}
    for layer in layers:
        for weight in _texts(root[layer], "weight_names"):
            name = _full_name(layer, weight)
            # Two models in one may have the same names.
            found[f"{layer}/{name}" if name in found else name] = root[layer][weight]
    return found


def _texts(group, attribute):
    """A list of texts, which Keras splits into several attributes if it is long."""
    chunks = [group.attrs[attribute]] if attribute in group.attrs else []
    while f"{attribute}{len(chunks)}" in group.attrs:
        chunks.append(group.attrs[f"{attribute}{len(chunks)}"])
    return [text.decode() if isinstance(text, bytes) else str(text) for chunk in chunks for text in chunk]


def _full_name(layer, weight):
    """`vit/block_0/mlp/kernel:0` of the layer `block_0` -> `block_0/mlp/kernel`."""
    weight = re.sub(r":\d+$", "", weight)
    _, found, rest = f"/{weight}".partition(f"/{layer}/")
    if found:
        return f"{layer}/{rest}"
    # The weights of a model in the model have the names of their own layers.
    return weight if "/" in weight or layer == MODEL_GROUP else f"{layer}/{weight}"


def _check_functions(file, path, model):
    """Checks the config in the file, if `model.save` wrote one: does it compute what ViT computes?"""
    ours = model.config
    allowed = _activations(ours)
    for layer, config in _layer_configs(json.loads(file.attrs.get("model_config", "null"))):
        activation = config.get("activation")
        if layer == "LayerNormalization" and config.get("epsilon") != ours.norm_epsilon:
            other = f"epsilon {config.get('epsilon')}, ViT {ours.norm_epsilon}"
        elif isinstance(activation, str) and activation not in allowed:
            other = f"the activation {activation}, ViT {', '.join(sorted(allowed))}"
        else:
            continue
        raise InputError(
            f"{path}: the layer {config.get('name')} has {other}, so the logits would differ. Build the ViT "
            "with the norm_epsilon and the activation of the file. To use the weights nevertheless, save "
            'them alone: model.save_weights("x.h5").'
        )


def _activations(ours: ViTConfig) -> set[str]:
    """The activations in Keras's words that a model of these arguments has."""
    names = {"linear", "softmax", *KERAS_NAMES[ours.activation]}  # softmax: ViT returns the logits before it
    if ours.stem != "linear":
        names.add("relu")
    if ours.head_hidden_dim and ours.num_classes:
        names.add(ours.head_activation)
    if ours.pooling == "map":
        names.update(KERAS_NAMES[ours.pool_activation])
    return names


def _layer_configs(node):
    """(class name, config) of each layer in a saved config, also in nested models."""
    if isinstance(node, dict):
        if isinstance(node.get("config"), dict) and "class_name" in node:
            yield node["class_name"], node["config"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _layer_configs(child)


def _place(datasets, path, model, names):
    """Path of each weight of the model -> {part: dataset}: the part is "", or query, key and value."""
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
    unused = [name for name in names if not any(_is_below(full, name) for full in datasets)]
    if unused:
        raise InputError(f"names has {unused[0]!r}, but {path} has no such layer. It has {_some(datasets)}.")
    placed: dict[str, dict] = {target: {} for target in shapes}
    sources: dict[tuple, str] = {}
    for full, dataset in datasets.items():
        name = _name_in_vit(full, names)
        split = SPLIT.fullmatch(name)
        target, part = (f"{split[1]}/qkv/{split[3]}", split[2]) if split else (name, "")
        if target not in shapes:
            fix = next(fix for pattern, fix in FIXES if re.fullmatch(pattern, name))
            alias = "" if name == full else f" (as {name})"
            raise InputError(
                f"{path} has {full} {dataset.shape}{alias}, which the model does not have: {fix}."
            )
        if part in placed[target]:
            raise InputError(
                f"{path} has {sources[target, part]} and {full}, both for {target}: save one of them."
            )
        _check_shape(full, dataset.shape, target, part, shapes[target], path, model)
        placed[target][part], sources[target, part] = dataset, full
    missing = [target for target, parts in placed.items() if set(parts) not in ({""}, set(QKV))]
    if missing:
        raise InputError(
            f"{path} does not have, or not completely, {_some(missing)}: "
            "build the ViT with the depth and the options of the file."
        )
    return placed


def _is_below(full, name):
    return full == name or full.startswith(f"{name}/")


def _name_in_vit(full, names):
    # The longest first: a weight is named before its layer.
    for name in sorted(names, key=len, reverse=True):
        if _is_below(full, name):
            full = names[name] + full[len(name) :]
            break
    for pattern, replacement in NAMING:
        if re.fullmatch(pattern, full):
            return re.sub(pattern, replacement, full)
    return full


def _some(names):
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_shape(full, found, target, part, shape, path, model):
    allowed = _shapes(target, part, shape, model.get_config())
    if tuple(found) in allowed:
        return
    if target == "position_embedding/table":
        fix = "the file is for another image or patch size; build the ViT with these, then take ViT.resized"
    elif target.startswith("head/"):
        fix = f"build the ViT with num_classes={found[-1]} and the head of the file"
    elif "/attention/" in target:
        fix = "build the ViT with the dim, num_heads and head_dim of the file"
    else:
        fix = "build the ViT with the sizes of the file"
    raise InputError(
        f"{path}: {full} is {tuple(found)}, and {target} of the model "
        f"{' or '.join(map(str, allowed))}: {fix}."
    )


def _shapes(target, part, shape, config):
    """The shapes that a weight may have in the file: its own, and that of the corresponding Keras layer."""
    heads = config["num_heads"]
    by_head = (heads, config["head_dim"] or config["dim"] // heads)
    if target == "patch_embed/projection/kernel":  # Conv2D
        side = config["patch_size"]
        return [shape, (side, side, *config["image_shape"][2:], config["dim"])]
    if target == "position_embedding/table":  # Embedding
        return [shape, shape[1:]]
    if target == "add_cls/tokens" and shape[1] == 1:
        return [shape, shape[1:], shape[2:]]
    if part:  # MultiHeadAttention
        return [(*shape[:-1], math.prod(by_head)), (*shape[:-1], *by_head)]
    if target.endswith("/attention/projection/kernel"):
        return [shape, (*by_head, shape[-1])]
    return [shape]


def _value(parts, shape):
    ordered = [parts[part] for part in QKV] if len(parts) > 1 else [parts[""]]
    flat = [np.asarray(dataset[()], dtype="float32").reshape(*shape[:-1], -1) for dataset in ordered]
    return np.concatenate(flat, axis=-1)
