"""The linter, the formatter and the type checker, as the project configures them."""

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_the_linters_find_nothing(command):
    pytest.importorskip(command[0])
    ran = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
