"""What a model looks at in one image, and why it gives its answer."""

from dataclasses import dataclass

import numpy as np

from keras_vit.explain.placement import Box


@dataclass(frozen=True)
class Explanation:
    """What a run looks at in one image.

    Args:
        image: its path, as it was given, or its name.
        label: the likeliest class; `None` if there is an error.
        confidence: the calibrated probability of `label`.
        reject: whether the image is unlike the training images, or cannot be read.
        class_name: the class that `gradient_weighted` speaks for; by default `label`.
        block: the number of the block of `heads`, 0 for the first; `None` for the attention pooling.
        heads: float32 (heads, rows, columns), the attention of the class token to each patch. See
            `keras_vit.explain.flow.heads_of_block` for models without one.
        rollout: float32 (rows, columns), attention rollout (Abnar and Zuidema 2020).
        gradient_weighted: float32 (rows, columns), gradient-weighted attention (Chefer, Gur and Wolf 2021)
            for `class_name`: 0 where a patch does not speak for it.
        removal: float32 (rows, columns), see `keras_vit.explain.removal.removal_map`; `None` if not
            asked for.
        pixels: uint8 (height, width, 1 or 3), the picture in its own size.
        box: where the patches lie on it.
        error: why there is no answer; or `None`. The arrays are `None` then.
    """

    image: str
    label: str | None
    confidence: float | None
    reject: bool
    class_name: str | None = None
    block: int | None = None
    heads: np.ndarray | None = None
    rollout: np.ndarray | None = None
    gradient_weighted: np.ndarray | None = None
    removal: np.ndarray | None = None
    pixels: np.ndarray | None = None
    box: Box | None = None
    error: str | None = None
