"""What a run changes of a named size, as plain values. Nothing here imports Keras."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from keras_vit.errors import InputError, check_choice, check_range
from keras_vit.model.config import variant_arguments


@dataclass(frozen=True)
class Architecture:
    """Changes of the size that --model names; what is not given stays the size's own.

    Raises:
        InputError: a number is out of its range.
    """

    depth: int | None = None
    """encoder blocks"""
    num_heads: int | None = None
    """attention heads a block"""
    dim: int | None = None
    """width of a token; the heads divide it, where the size does not give them a width"""
    mlp_dim: int | None = None
    """width of a block's MLP"""
    stem: Literal["linear", "conv"] | None = None
    """one linear projection of each patch, or convolutions that halve the image"""
    drop_path_rate: float | None = None
    """stochastic depth: the chance that an image skips a branch of the last block in training"""

    def __post_init__(self):
        for name in ("depth", "num_heads", "dim", "mlp_dim"):
            check_range(name, getattr(self, name), 1, None)
        check_range("drop_path_rate", self.drop_path_rate, 0.0, 0.99)
        check_choice("stem", self.stem, (None, "linear", "conv"))

    def given(self) -> dict[str, Any]:
        """The arguments of `ViT` that are changed."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def __str__(self):
        """`"depth 8, drop_path_rate 0.1"`"""
        return ", ".join(f"{name} {value}" for name, value in self.given().items())


def check_architecture(model: str, changes: Architecture) -> None:
    """Raises InputError where a size and its changes do not make a model together.

    Args:
        model: size/patch.
        changes: of the size.
    """
    arguments = {**variant_arguments(model), **changes.given()}
    dim, heads, patch = arguments["dim"], arguments["num_heads"], arguments["patch_size"]
    if not arguments.get("head_dim") and dim % heads:
        raise InputError(f"num_heads must divide dim. Received: num_heads={heads}, dim={dim} for {model}")
    if arguments.get("stem") == "conv":
        if patch < 2 or patch & (patch - 1):
            raise InputError(
                "The conv stem halves the image, so the patch size must be 2, 4, 8, 16, ...: choose another, "
                f"or the linear stem. Received: {model}"
            )
        if dim % patch:
            raise InputError(
                f"The conv stem needs a dim that {patch} divides. Received: dim={dim} for {model}"
            )
