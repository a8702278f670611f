"""Sources of published weights so small that a run from them takes seconds: folders in the names of timm."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from tests.helpers import tiny
from tests.helpers.published import recorded, tensors_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet: each channel has its own, so that one in place of another shows."""

LICENCE = "apache-2.0"


def tensors(name: str = "token") -> dict[str, np.ndarray]:
    """The tensors of a recorded case of timm: dim 32, depth 2, RGB images of 16x16 pixels, patches of 8."""
    return tensors_of(recorded("timm")[name])


def timm_folder(
    folder: Path, name: str = "token", mean: Any = MEAN, std: Any = STD, interpolation: str = "bicubic"
) -> Path:
    """A folder with `config.json` and `model.safetensors`, as timm's repositories have them.

    Args:
        folder: to be made.
        name: of a recorded case of `tests/fixtures/weights/timm.json`.
        mean, std, interpolation: of the images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(recorded("timm")[name]["config"])
    config["pretrained_cfg"] |= {
        "mean": list(mean),
        "std": list(std),
        "interpolation": interpolation,
        "license": LICENCE,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors(name), folder / "model.safetensors")
    return folder


def draw_colours(folder: Path, each: int = 12, size: tuple[int, int] = (16, 16)) -> Path:
    """A folder of class folders of images whose three channels differ."""
    rng = np.random.default_rng(0)
    for name in tiny.CLASSES:
        (folder / name).mkdir(parents=True)
        for i in range(each):
            gray = tiny.pixels(name, rng, size)
            colours = np.stack([gray, gray // 2, 255 - gray // 3], axis=-1)
            Image.fromarray(colours).save(folder / name / f"{i}.png")
    return folder
