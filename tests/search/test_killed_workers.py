"""kill -9 at any moment, of a worker and of the chief: each trial is counted once."""

import pytest

from tests.search.killing import check_complete, check_loadable, kill_again_and_again

pytestmark = [pytest.mark.long, pytest.mark.same_on_every_backend]


@pytest.mark.parametrize("victim", ["worker1", "chief"])
def test_a_process_is_killed(more_images, tmp_path, victim):
    out = tmp_path / "search"
    kill_again_and_again(more_images, out, victim, "--workers", "2")
    check_complete(out, alone=False)
    check_loadable(more_images, out)
