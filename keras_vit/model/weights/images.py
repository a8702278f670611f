"""How images are prepared for a model, as far as files of weights say it."""

from dataclasses import dataclass
from typing import Literal

from keras_vit.model.weights.weights import Interpolation


@dataclass(frozen=True)
class Images:
    """What the config of another library says of the images of a model, and of its classes.

    Args:
        mean: of pixels in 0..1, one for each channel.
        std: likewise.
        interpolation: of the resize.
        aspect: what happens to images of another aspect ratio, as in `keras_vit.data.preprocess`.
        class_names: of the head, in order.
        licence: of the weights, as an SPDX name; `None` if unknown.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"
    aspect: Literal["stretch", "crop", "pad"] = "stretch"
    class_names: tuple[str, ...] | None = None
    licence: str | None = None
