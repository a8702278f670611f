"""kill -9 at random moments, of a worker and of the chief: each trial is counted once."""

import pytest

from tests.search.killing import check_complete, check_loadable, kill_repeatedly

pytestmark = [pytest.mark.long, pytest.mark.same_on_every_backend]


def test_a_worker_and_the_chief_are_killed_in_turn(more_images, tmp_path):
    out = tmp_path / "search"
    kill_repeatedly(more_images, out, "worker1", "chief", options=("--workers", "2"))
    check_complete(out, alone=False)
    check_loadable(more_images, out)
