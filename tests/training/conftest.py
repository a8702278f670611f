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


@pytest.fixture(scope="session")
def source(made_once):
    """A folder of published weights, whose images have a mean and a deviation for each channel."""
    from tests.helpers.sources import timm_folder

    return made_once("source", timm_folder)


@pytest.fixture(scope="session")
def colours(made_once):
    """A folder of colour images in class folders."""
    from tests.helpers.sources import draw_colours

    return made_once("colours", draw_colours)


@pytest.fixture(scope="session")
def from_source(source, colours, made_once):
    """recipe -> a finished run that began with `source`, and the output of the command."""
    from keras_vit.cache import FOLDER
    from keras_vit.cli.main import main
    from keras_vit.process.exit_codes import FINE
    from keras_vit.runs.folder import load_run
    from tests.helpers import tiny

    def find(recipe):
        def train(folder):
            folder.mkdir()
            words = ["train", "--init", source, "--data", colours, "--out", folder / "run", *tiny.NO_XLA]
            words += ["--recipe", recipe, "--epochs", "2" if recipe != "probe" else "1", "--batch-size", "8"]
            printed = io.StringIO()
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
                patch.setenv(FOLDER, str(folder / "cache"))
                assert main([str(word) for word in words]) == FINE
            (folder / "printed.txt").write_text(printed.getvalue())

        folder = made_once(f"from_source_{recipe}", train)
        return load_run(folder / "run"), (folder / "printed.txt").read_text()

    return find
