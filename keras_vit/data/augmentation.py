"""What augmentation does, as plain values; `augment.py` does it."""

from dataclasses import dataclass
from typing import Literal

from keras_vit.errors import InputError, check_range


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the training images. The defaults leave them as they are."""

    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    """mirror images, each way with chance 1/2"""
    transpose: bool = False
    """swap rows and columns with chance 1/2; with flip "both", all eight symmetries of a square"""
    crop: float = 0.0
    """shift images by up to this share of their side, the border mirrored in"""
    brightness: float = 0.0
    """add up to this share of white or black"""
    contrast: float = 0.0
    """scale the distance from the mean by 1 - this to 1 + this"""
    rand_augment: float = 0.0
    """magnitude, 0 to 1, of RandAugment's two operations (Cubuk et al. 2019)"""
    mixup: float = 0.0
    """alpha of MixUp (Zhang et al. 2017); with cutmix too, each batch gets one of the two"""
    cutmix: float = 0.0
    """alpha, 0 to 1, of CutMix (Yun et al. 2019)"""
    erasing: float = 0.0
    """largest share of an image that random erasing blanks (Zhong et al. 2017)"""

    def __post_init__(self):
        if self.flip not in ("none", "horizontal", "vertical", "both"):
            raise InputError(
                f'flip must be "none", "horizontal", "vertical" or "both". Received: flip={self.flip!r}'
            )
        for name in ("crop", "brightness", "contrast", "rand_augment", "cutmix", "erasing"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        check_range("mixup", self.mixup, 0.0, 10.0)
