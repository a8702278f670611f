"""On the devices that a user has set up, `fit` takes what it takes on one device, and gives the same."""

import json

import pytest

from tests.distribution.kinds import KINDS, UNEQUAL
from tests.distribution.processes import BACKEND, finish, start

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BACKEND == "torch", reason="a process of torch has one device; see test_equal.py"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The largest difference between one device and two, of each kind."""
    file = tmp_path_factory.mktemp("kinds") / "found.json"
    finish(start("kinds", file))
    return json.loads(file.read_text())


@pytest.mark.parametrize("name", KINDS)
def test_equals_one_device(found, name):
    assert found[name] < 1e-6


@pytest.mark.skipif(BACKEND != "jax", reason="TensorFlow shares batches of any size")
@pytest.mark.parametrize("name", UNEQUAL)
def test_unequal_shares_are_refused_in_one_sentence(found, name):
    rows = {"arrays of another size": 5, "an unequal rest": 3, "fewer rows than devices": 1}[name]
    assert found[name] == (
        f"A batch of {rows} images cannot be shared equally by 2 devices: use batches of a multiple of 2 "
        "images, the last one too."
    )
