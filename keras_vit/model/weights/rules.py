"""Rules between the tensors of another library and the weights of `ViT`, used in both directions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vit.errors import InputError

Arrays = Sequence[np.ndarray]


@dataclass(frozen=True)
class Rule:
    """One weight of `ViT` and the tensors that it is made of.

    Args:
        ours: path of the weight, such as `"block_0/attention/qkv/kernel"`.
        theirs: names of their tensors, one or more.
        to_ours: their arrays, in the order of `theirs`, as ours.
        to_theirs: ours as their arrays.
    """

    ours: str
    theirs: tuple[str, ...]
    to_ours: Callable[..., np.ndarray]
    to_theirs: Callable[[np.ndarray], Arrays]


def same(ours: str, theirs: str) -> Rule:
    """A vector, or another tensor that both have in one layout."""
    return Rule(ours, (theirs,), lambda a: a, lambda a: [a])


def dense(ours: str, theirs: str) -> Rule:
    """A kernel (in, out) of Keras, which torch has as (out, in)."""
    return Rule(ours, (theirs,), lambda a: a.T, lambda a: [a.T])


def stacked(ours: str, theirs: Sequence[str]) -> Rule:
    """A kernel of Keras that torch has in several parts, (out, in) each: query, key and value."""
    return Rule(
        ours,
        tuple(theirs),
        lambda *parts: np.concatenate(parts).T,
        lambda a: [part.T for part in np.split(a, len(theirs), axis=1)],
    )


def joined(ours: str, theirs: Sequence[str]) -> Rule:
    """A vector that they have in several parts of one length: the biases of query, key and value."""
    return Rule(
        ours,
        tuple(theirs),
        lambda *parts: np.concatenate(parts),
        lambda a: np.split(a, len(theirs)),
    )


def norm(ours: str, theirs: str) -> list[Rule]:
    """A layer normalisation: gamma and beta here, weight and bias in torch."""
    return [same(f"{ours}/gamma", f"{theirs}.weight"), same(f"{ours}/beta", f"{theirs}.bias")]


def linear(ours: str, theirs: str, bias: bool = True) -> list[Rule]:
    """A dense layer with or without a bias."""
    rules = [dense(f"{ours}/kernel", f"{theirs}.weight")]
    return rules + [same(f"{ours}/bias", f"{theirs}.bias")] * bias


def tokens(ours: str, theirs: Sequence[str], counts: Sequence[int]) -> Rule:
    """Tokens (1, count, dim) that they have in several tensors, such as the class token and registers."""
    ends = np.cumsum(counts)[:-1].tolist()
    return Rule(
        ours,
        tuple(theirs),
        lambda *parts: np.concatenate(parts, axis=1),
        lambda a: np.split(a, ends, axis=1),
    )


def two_heads(ours: str, theirs: Sequence[str]) -> list[Rule]:
    """The heads of the class token and of the distillation token, whose logits are averaged (DeiT).

    Here it is one dense layer on both tokens side by side, with the halves of their kernels.
    """
    return [
        Rule(
            f"{ours}/kernel",
            tuple(f"{name}.weight" for name in theirs),
            lambda a, b: np.concatenate([a.T, b.T]) / 2,
            lambda a: [2 * part.T for part in np.split(a, 2)],
        ),
        Rule(
            f"{ours}/bias",
            tuple(f"{name}.bias" for name in theirs),
            lambda *both: np.stack(both).mean(axis=0),
            lambda a: [a, a],
        ),
    ]


def patch_kernel(ours: str, theirs: str, channels: int, patch_size: int) -> Rule:
    """The patch projection: a convolution (dim, channels, p, p) there, (p * p * channels, dim) here."""
    p = patch_size
    return Rule(
        ours,
        (theirs,),
        lambda a: a.transpose(2, 3, 1, 0).reshape(p * p * channels, -1),
        lambda a: [a.reshape(p, p, channels, -1).transpose(3, 2, 0, 1)],
    )


def apply(
    rules: Sequence[Rule], tensors: Mapping[str, np.ndarray], what: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Their tensors as the weights of `ViT`.

    Args:
        rules: one for each weight of `ViT`.
        tensors: of the file.
        what: the file, for messages.

    Returns:
        Our arrays by path, float32; and the names of the tensors that no rule uses.

    Raises:
        InputError: tensors are missing.
    """
    wanted = [name for rule in rules for name in rule.theirs]
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise InputError(
            f"{what} lacks {some(missing)}: the file is incomplete, or of a model that is not known here."
        )
    arrays = {}
    for rule in rules:
        try:
            made = rule.to_ours(*(np.asarray(tensors[name], "float32") for name in rule.theirs))
        except ValueError as error:
            shapes = ", ".join(f"{name} {tuple(tensors[name].shape)}" for name in rule.theirs)
            raise InputError(f"{what} has tensors of a wrong shape for {rule.ours}: {shapes}.") from error
        arrays[rule.ours] = np.ascontiguousarray(made)
    used = set(wanted)
    return arrays, tuple(name for name in tensors if name not in used)


def invert(rules: Sequence[Rule], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights of `ViT` as their tensors, float32.

    Args:
        rules: one for each weight of `ViT`.
        arrays: by path.
    """
    tensors: dict[str, Any] = {}
    for rule in rules:
        for name, array in zip(rule.theirs, rule.to_theirs(arrays[rule.ours]), strict=True):
            tensors[name] = np.ascontiguousarray(array, dtype="float32")
    return tensors


def some(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
