"""`keras-vit weights`"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from keras_vit.cli.options import option_group
from keras_vit.model.config import ViTConfig
from keras_vit.model.weights.weights import Interpolation
from keras_vit.text import say
from keras_vit.training.options import Option
from keras_vit.validation import helps, hints

TOLD = "as the source tells"

if TYPE_CHECKING:
    ToldOptions = dict[str, Any]
else:
    ToldOptions = option_group(
        "ToldOptions",
        {
            **{
                name: Option(hints(ViTConfig)[name], " ".join(helps(ViTConfig)[name].split()), TOLD)
                for name in ("num_heads", "activation", "norm_epsilon", "pooling")
            },
            "image_size": Option(
                int | tuple[int, int], "side of the images in pixels, or height and width", TOLD
            ),
            "mean": Option(
                tuple[float, ...], "subtracted from pixels in 0..1, one value or one per channel", TOLD
            ),
            "std": Option(
                tuple[float, ...], "pixels are then divided by it, one value or one per channel", TOLD
            ),
            "interpolation": Option(Interpolation, "how images are resized", TOLD),
        },
    )


@dataclass
class Weights:
    """Show what published weights are: architecture, images, classes, licence.

    What a file of weights does not tell is given with the options.

    Examples:
      keras-vit weights timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k
      keras-vit weights hf:facebook/dinov2-small@main --json
      keras-vit weights mine.pth --num-heads 4 --activation relu --norm-epsilon 1e-5 --mean 0.5 --std 0.5
    """

    source: Positional[str]
    """a file, a folder with config.json, a run folder, timm:NAME, or hf:REPO[@REVISION]"""
    told: ToldOptions
    json: bool = False
    """print everything as JSON"""

    def __call__(self) -> None:
        from keras_vit.model.weights.describe import to_dict, to_text
        from keras_vit.model.weights.read import read_weights

        found = read_weights(self.source, **self.told)
        say(*[json.dumps(to_dict(found))] if self.json else to_text(found).split("\n"))
