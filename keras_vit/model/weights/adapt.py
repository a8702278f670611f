"""Weights for other images, other classes or another head: what changes before a `ViT` gets them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit.errors import InputError
from keras_vit.model.config import ViTConfig
from keras_vit.model.layers.patch_embed import resize_patch_kernel
from keras_vit.model.layers.position_embedding import resize_position_table
from keras_vit.model.weights.weights import Weights

HEAD = ("num_classes", "pooling", "head_hidden_dim", "head_activation")
FREE = (
    "dropout_rate",
    "attention_dropout_rate",
    "drop_path_rate",
    "remat",
    "patch_size",
    *HEAD[1:],
)
"""Arguments of a `ViT` that may differ from those of the weights. All others are of the weights."""

KERNEL, BIAS, TABLE = (
    "patch_embed/projection/kernel",
    "patch_embed/projection/bias",
    "position_embedding/table",
)


def adapt(
    weights: Weights,
    image_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    changes: Mapping[str, Any] | None = None,
    new_head: bool = False,
) -> Weights:
    """The weights for other images, classes or another head.

    The position table is resized bicubically and the patch projection by PI-resize. For other channels the
    patch projection is summed over the channels of the file (the sum rule): a model for gray images then
    answers as the model for RGB images does for three equal channels. A new head begins with zeros.

    Args:
        weights: of a file.
        image_shape: (height, width, channels); `None` for that of the weights.
        num_classes: `None` for that of the weights, 0 for no head. Another number gives a new head.
        changes: other values for the arguments of `FREE`.
        new_head: whether the head is new even where the file has one of as many classes.

    Returns:
        `Weights` whose config is the wanted one; `new` names the weights that the arrays lack.

    Raises:
        InputError: a change cannot be made, such as a class token where the file has none.
    """
    old = weights.config
    config = _wanted(old, image_shape, num_classes, changes or {})
    arrays, notes = dict(weights.arrays), list(weights.notes)
    mean, std = weights.mean, weights.std
    if config.image_shape[2] != old.image_shape[2]:
        mean, std = _channels(arrays, notes, config, old, mean, std)
        config = dataclasses.replace(config, patch_bias=BIAS in arrays)
    if config.patch_size != old.patch_size:
        if old.patch_norm or old.stem != "linear":
            raise InputError(
                f"{weights.origin.source} has a patch embedding for patch_size={old.patch_size} only: leave "
                "patch_size out."
            )
        channels = config.image_shape[2]
        arrays[KERNEL] = resize_patch_kernel(arrays[KERNEL], old.patch_size, channels, config.patch_size)
        notes.append(f"patches resized from {old.patch_size} to {config.patch_size} pixels (PI-resize)")
    if TABLE in arrays and config.grid != old.grid:
        prefix = arrays[TABLE].shape[1] - old.grid[0] * old.grid[1]
        arrays[TABLE] = resize_position_table(arrays[TABLE], old.grid, config.grid, prefix)
        notes.append(f"positions resized from {_by(old.grid)} to {_by(config.grid)} patches (bicubic)")
    new = list(weights.new)
    keeps_head = not new_head and all(getattr(config, name) == getattr(old, name) for name in HEAD)
    if not keeps_head:
        _new_head(arrays, new, notes, config, old, weights)
    return dataclasses.replace(
        weights,
        config=config,
        arrays=arrays,
        mean=mean,
        std=std,
        class_names=weights.class_names if keeps_head else None,
        new=tuple(new),
        notes=tuple(notes),
    )


def _wanted(
    old: ViTConfig,
    image_shape: Sequence[int] | None,
    num_classes: int | None,
    changes: Mapping[str, Any],
) -> ViTConfig:
    wrong = sorted(changes.keys() - set(FREE))
    if wrong:
        raise InputError(
            f"{', '.join(wrong)} comes from the weights: leave it out. Other values are possible for "
            f"{', '.join(FREE)}."
        )
    changed = dict(changes)
    pooling = changed.get("pooling", old.pooling)
    if pooling != old.pooling:
        if pooling in ("token", "token+gap") and not old.use_cls:
            raise InputError(f'The weights have no class token, which pooling="{pooling}" needs.')
        if pooling == "token+distilled":
            raise InputError('The weights have no distillation token, which pooling="token+distilled" needs.')
        # The file's tokens stay: a class token that is not pooled is still one that the others attend to.
        changed["class_token"] = old.use_cls
        if old.pooling == "token+distilled":
            raise InputError("The weights have a distillation token, so the pooling cannot change.")
        if pooling == "token+gap" and old.final_norm == "pooled":
            changed["final_norm"] = "tokens"  # its norm has the width of one token
    return dataclasses.replace(
        old,
        image_shape=old.image_shape if image_shape is None else tuple(image_shape),  # type: ignore[arg-type]
        num_classes=old.num_classes if num_classes is None else num_classes,
        **changed,
    )


def _channels(
    arrays: dict[str, np.ndarray],
    notes: list[str],
    config: ViTConfig,
    old: ViTConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Sums the patch projection over the channels; the mean and the standard deviation of the new ones."""
    count, before = config.image_shape[2], old.image_shape[2]
    if old.stem != "linear" or old.patch_norm:
        raise InputError(
            f"The patch embedding of the weights is made for {before} channels: give images of {before}."
        )
    means, stds = np.broadcast_to(mean, before), np.broadcast_to(std, before)
    one_mean, one_std = float(np.mean(means)), float(np.mean(stds))
    kernel = arrays[KERNEL].reshape(-1, before, arrays[KERNEL].shape[1])  # (p p) c d
    # What a gray pixel g gives in RGB is the sum of k_c (g - mean_c) / std_c.
    scaled = kernel * (one_std / stds)[None, :, None]
    summed = scaled.sum(axis=1, keepdims=True)
    arrays[KERNEL] = np.repeat(summed / count, count, axis=1).reshape(-1, kernel.shape[2]).astype("float32")
    shift = (kernel * ((one_mean - means) / stds)[None, :, None]).sum(axis=(0, 1))
    if BIAS in arrays or np.abs(shift).max() > 1e-6:  # CLIP has no bias, but a mean for each channel
        arrays[BIAS] = (arrays.get(BIAS, 0.0) + shift).astype("float32")
    notes.append(f"patch projection summed over {before} channels for {count}")
    return (one_mean,) * count, (one_std,) * count


def _new_head(
    arrays: dict[str, np.ndarray],
    new: list[str],
    notes: list[str],
    config: ViTConfig,
    old: ViTConfig,
    weights: Weights,
) -> None:
    """Removes what is of the old head, and makes the new one."""
    same_hidden = (config.pooling, config.head_hidden_dim, config.head_activation) == (
        old.pooling,
        old.head_hidden_dim,
        old.head_activation,
    )
    dropped = [name for name in arrays if name.startswith("head/")]
    if not same_hidden:
        dropped += [name for name in arrays if name.startswith("head_hidden/")]
    if config.pooling != old.pooling:
        dropped += [name for name in arrays if name.startswith("pool/")]
    for name in dropped:
        del arrays[name]
        if name in new:
            new.remove(name)
    if config.pooling == "map" and old.pooling != "map":
        new.append("pool")
    if config.head_hidden_dim and not same_hidden:
        new += ["head_hidden/kernel", "head_hidden/bias"]
    if config.num_classes == 0:
        if dropped:
            notes.append(f"the head of {old.num_classes} classes is dropped")
        return
    width = config.head_hidden_dim or config.feature_width
    arrays["head/kernel"] = np.zeros((width, config.num_classes), "float32")
    arrays["head/bias"] = np.zeros(config.num_classes, "float32")
    instead = f" in place of that of {old.num_classes}" if dropped and old.num_classes else ""
    notes.append(f"a new head of {config.num_classes} classes{instead}, which begins with zeros")


def _by(grid: tuple[int, int]) -> str:
    return f"{grid[0]}x{grid[1]}"
