"""kill -9 at random moments, of the command and of its process: each trial is counted once."""

import random
import signal
import time

import pytest

from tests.search.killing import KILLS, SEED, check_complete, check_loadable, ended, kill_repeatedly
from tests.search.running import finish, start, wait_for

pytestmark = [pytest.mark.long, pytest.mark.same_on_every_backend]


def test_the_command_itself_is_killed(more_images, tmp_path):
    out, chance = tmp_path / "search", random.Random(SEED)
    for _ in range(KILLS):
        process = start(more_images, out)
        before = ended(out)
        wait_for(lambda before=before: ended(out) > before, "a trial's end")
        time.sleep(chance.uniform(0, 3))
        process.send_signal(signal.SIGKILL)
        finish(process, -signal.SIGKILL)
    finish(start(more_images, out))
    check_complete(out)
    check_loadable(more_images, out)


def test_the_process_of_the_search_is_killed(more_images, tmp_path):
    out = tmp_path / "search"
    kill_repeatedly(more_images, out, "tuner0")
    check_complete(out)
    check_loadable(more_images, out)
