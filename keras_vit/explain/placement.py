"""Where the patches of a prepared image lie on the picture that it was made from."""

from dataclasses import dataclass

from keras_vit.data.preprocess import Aspect


@dataclass(frozen=True)
class Box:
    """A rectangle in the pixels of a picture, whose first pixel reaches from 0 to 1; it may be larger.

    Args:
        top, bottom, left, right: its sides.
    """

    top: float
    bottom: float
    left: float
    right: float


def place(height: int, width: int, to_height: int, to_width: int, aspect: Aspect) -> Box:
    """The part of a picture that the model sees, as `preprocess.resize_image` makes it.

    Args:
        height, width: of the picture.
        to_height, to_width: of the model's input.
        aspect: `"stretch"`: the whole picture; `"crop"`: a window at its centre; `"pad"`: the picture and the
            border around it.
    """
    if aspect == "crop":
        side = min(height / to_height, width / to_width)
        rows, columns = (max(1, round(side * size)) for size in (to_height, to_width))
        top, left = (height - rows) // 2, (width - columns) // 2
        return Box(top, top + rows, left, left + columns)
    if aspect == "pad":
        scale = min(to_height / height, to_width / width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        above, before = (to_height - rows) // 2, (to_width - columns) // 2
        vertical, horizontal = height / rows, width / columns  # pixels of the picture per pixel of the input
        return Box(
            -above * vertical,
            (to_height - above) * vertical,
            -before * horizontal,
            (to_width - before) * horizontal,
        )
    return Box(0, height, 0, width)
