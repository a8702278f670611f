"""Every recorded file is recognised by its own family, and by no other."""

import pytest

from keras_vit.model.weights.checkpoint import Checkpoint, Origin
from keras_vit.model.weights.read import FAMILIES
from keras_vit.model.weights.unwrap import unwrapped
from tests.helpers.published import recorded
from tests.helpers.random_tensors import random_tensors

pytestmark = pytest.mark.same_on_every_backend

FIXTURES = {
    "timm": "timm",
    "huggingface": "huggingface",
    "google": "google",
    "vit_pytorch": "vit-pytorch",
    "kerashub": "kerashub",
}
"""File of recorded cases -> name of the family."""


def shapes_of(case):
    if "shapes" in case:
        return case["shapes"]
    files = case["files"].items()  # KerasHub's
    return {
        ("task/" if file.startswith("task") else "") + name: shape
        for file, shapes in files
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("fixture", FIXTURES)
def test_one_family_recognises_a_file(fixture):
    for name, case in recorded(fixture).items():
        tensors = random_tensors({key: tuple(shape) for key, shape in shapes_of(case).items()})
        # Without a config: names must do.
        checkpoint = Checkpoint(unwrapped(tensors, name)[0], Origin("file", (), ""))

        found = [family.FAMILY for family in FAMILIES if family.recognises(checkpoint)]

        assert found == [FIXTURES[fixture]], name
