"""On the devices that a user has set up, `fit` takes what it takes on one device, and gives the same."""

import json

import pytest

from tests.distribution.kinds import KINDS
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


def test_distribute_counts_what_the_user_has_configured(found):
    assert found["devices of distribute()"] == 2
