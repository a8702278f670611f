import contextlib
import io

import pytest


@pytest.fixture(scope="session")
def three_epochs(images, made_once):
    """A finished run of three epochs, alone in its folder. Tests must not change it."""
    from keras_vit.cli.main import main
    from keras_vit.process.exit_codes import FINE
    from keras_vit.runs.folder import load_run
    from tests.helpers import tiny

    def train(folder):
        folder.mkdir()
        with tiny.size(), contextlib.redirect_stdout(io.StringIO()):
            assert main(tiny.command(images, folder / "first", epochs=3)) == FINE

    return load_run(made_once("three_epochs", train) / "first")
