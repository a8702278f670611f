"""From a source of published weights to the weights of a `ViT`: the file is opened, its family reads it."""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from keras_vit.errors import InputError
from keras_vit.model.config import CHANGEABLE
from keras_vit.model.keras_file import check_size
from keras_vit.model.weights.families import google, huggingface, kerashub, own, timm, vit_pytorch
from keras_vit.model.weights.families.others import kind_of
from keras_vit.model.weights.rules import some
from keras_vit.model.weights.sources import open_checkpoint
from keras_vit.model.weights.weights import Weights

# The first that knows the names of a file reads it.
FAMILIES = (own, google, kerashub, timm, huggingface, vit_pytorch)

MOST_NEW = 1_000_000  # values of a ViT that a file may lack, beside as many as it has

ABOUT_IMAGES = ("mean", "std", "interpolation", "image_size")
"""What a file may not tell of its images."""


def read_weights(source: str | Path, **arguments: Any) -> Weights:
    """Reads published weights, whatever library they are from; no model is built.

    Args:
        source: a file, a folder with `config.json`, a run folder, `"timm:NAME"`, or
            `"hf:REPO"` or `"hf:REPO@REVISION"`; see `keras_vit.model.weights.sources.open_checkpoint`.
        **arguments: what the file does not tell, by the names of `ViTConfig`, such as `num_heads`,
            `activation` and `norm_epsilon`; and `mean`, `std` and `interpolation` of its images.

    Raises:
        InputError: there is no such source, it is damaged, its architecture is not that of a ViT, or it does
            not tell what the arguments would.
    """
    _check_names(arguments)
    checkpoint = open_checkpoint(source)
    for family in FAMILIES:
        if family.recognises(checkpoint):
            found = family.read(checkpoint, arguments)
            _check_size(source, found)
            return found
    kind = kind_of(checkpoint.tensors)
    if kind is not None:
        raise InputError(f"{source} is not a ViT that is known here: by its tensor names it is {kind}.")
    raise InputError(
        f"{source} has no tensor names of a known ViT (it has {some(list(checkpoint.tensors))}): "
        "give weights of timm, Hugging Face, Google, vit-pytorch, KerasHub or keras_vit."
    )


def _check_size(source: str | Path, found: Weights) -> None:
    """Raises InputError if the config claims a much larger model than the weights are, before it is built."""
    sizes = [math.prod(array.shape) for array in found.arrays.values()]
    check_size(source, found.config, len(sizes), MOST_NEW + 2 * sum(sizes))


def _check_names(arguments: Mapping[str, Any]) -> None:
    """Raises InputError for an argument that no reader knows, with the name that is nearest."""
    known = (*CHANGEABLE, *ABOUT_IMAGES)
    for name in arguments:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" Perhaps you meant {near[0]}." if near else f" Known are {', '.join(known)}."
            raise InputError(f"{name} is not an argument of published weights.{hint}")
