"""Published weights in the names and layouts of `ViT`: what every family's reader returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from keras_vit.model.config import ViTConfig
from keras_vit.model.weights.checkpoint import Origin

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Weights:
    """A trained ViT that is not built yet.

    Args:
        family: whose names the file has: `"timm"`, `"huggingface"`, `"google"`, `"vit-pytorch"`, `"kerashub"`
            or `"keras_vit"`.
        config: the architecture; `num_classes` is 0 where the file has no head.
        arrays: path of a weight in `ViT`, such as `"block_0/attention/qkv/kernel"` -> its value, in the
            shape that the weight of `ViT(**config)` has.
        origin: of the file.
        mean: of the pixels in 0..1, per channel, that is subtracted before the model.
        std: that the pixels are then divided by, per channel.
        interpolation: how images are resized for the model.
        class_names: of the head, in order; `None` if the file does not say.
        unused: names of tensors of the file that `ViT` has no use for.
        new: paths of weights of `ViT` that the file does not have; they keep their first values.
        told_by: argument that tensors cannot tell (`"norm_epsilon"`, `"num_heads"`, `"mean"`) -> who told
            it: `"argument"`, `"config.json"`, `"table of published names"`, `"shapes"`, ...
        notes: one line for each thing that was converted on the way.
    """

    family: str
    config: ViTConfig
    arrays: Mapping[str, np.ndarray]
    origin: Origin
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    interpolation: Interpolation = "bicubic"
    class_names: tuple[str, ...] | None = None
    unused: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    told_by: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
