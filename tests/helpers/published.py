"""Published weights in tests: models from what the families read, and files of recorded cases."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit import ViT
from keras_vit.model.weights.weights import Weights
from tests.helpers.random_tensors import random_images, random_tensors

FIXTURES = Path(__file__).parent.parent / "fixtures" / "weights"


def built(weights: Weights) -> ViT:
    """The model of read weights: each weight is set from an array of its shape, and no array is left over."""
    model = ViT(**dataclasses.asdict(weights.config))
    arrays = dict(weights.arrays)
    for variable in model.weights:
        path = variable.path.removeprefix("vit/")
        if "seed_generator" not in path:
            array = arrays.pop(path)
            assert array.shape == tuple(variable.shape), path
            variable.assign(array)
    assert not arrays, sorted(arrays)
    return model


def random_vit(arguments: Mapping[str, Any]) -> ViT:
    """A model whose weights depend only on their paths and shapes.

    Args:
        arguments: of `ViT`.
    """
    model = ViT(**arguments)
    paths = {variable.path.removeprefix("vit/"): variable for variable in model.weights}
    paths = {path: variable for path, variable in paths.items() if "seed_generator" not in path}
    values = random_tensors({path: tuple(variable.shape) for path, variable in paths.items()})
    for path, variable in paths.items():
        variable.assign(values[path])
    return model


def answers(model: ViT, images: np.ndarray) -> np.ndarray:
    """What a model returns for scaled pixels, as an array."""
    return keras.ops.convert_to_numpy(model(images, training=False))


def recorded(family: str) -> dict[str, dict[str, Any]]:
    """The cases of `tests/fixtures/weights/FAMILY.json` by name."""
    return {case["name"]: case for case in json.loads((FIXTURES / f"{family}.json").read_text())}


def tensors_of(case: dict[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a recorded case."""
    return random_tensors({name: tuple(shape) for name, shape in case["shapes"].items()})


def images_of(case: dict[str, Any]) -> np.ndarray:
    """The images of a recorded case, (2, height, width, channels)."""
    return random_images(case["image_shape"])
