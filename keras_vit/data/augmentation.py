"""The settings of augmentation. `random_transforms.py` applies them."""

from typing import Annotated, Literal

from pydantic import Field

from keras_vit.data.corruptions import KINDS, Corruption
from keras_vit.data.values import is_measured
from keras_vit.errors import InputError
from keras_vit.validation import validated

Flip = Literal["none", "horizontal", "vertical", "both"]
Strength = Annotated[float, Field(ge=0.0, le=1.0)]


@validated
class Augmentation:
    """Random changes of the training images. The defaults leave them as they are."""

    flip: Flip = "none"
    """mirror images, in each direction with probability 1/2"""
    transpose: bool = False
    """swap rows and columns with probability 1/2; with flip "both", all eight symmetries of a square"""
    crop: Strength = 0.0
    """shift images by up to this share of their side; the gap is filled with the mirrored border"""
    brightness: Strength = 0.0
    """add up to this share of white or black"""
    contrast: Strength = 0.0
    """scale the distance from the mean by 1 - this to 1 + this"""
    rand_augment: Strength = 0.0
    """magnitude, 0 to 1, of RandAugment's two operations (Cubuk et al. 2019)"""
    mixup: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """alpha of MixUp (Zhang et al. 2017); with cutmix too, each batch gets one of the two"""
    cutmix: Strength = 0.0
    """alpha, 0 to 1, of CutMix (Yun et al. 2019)"""
    erasing: Strength = 0.0
    """largest share of an image that random erasing blanks (Zhong et al. 2017)"""
    corrupted_copies: Annotated[int, Field(ge=0, le=64)] = 0
    """corrupted copies of each training image (noise, blur, other light, JPEG, ...), made once; about
    half of the images of a batch are such copies"""
    corruptions: Annotated[tuple[Corruption, ...], Field(min_length=1, strict=False)] = KINDS
    """kinds of corruptions that these copies get"""

    def __post_init__(self):
        if len(set(self.corruptions)) < len(self.corruptions):
            raise InputError(
                f"corruptions must name each kind once. Received: corruptions={self.corruptions}"
            )

    def left_out(self, channels: int) -> str | None:
        """A line on what is left out for so many channels; `None` if nothing is.

        RandAugment changes colours, which channels of measurement do not have.
        """
        if not self.rand_augment or not is_measured(channels):
            return None
        return (
            f"RandAugment is left out: it changes colours, and the images have {channels} channels of "
            "measurement"
        )
