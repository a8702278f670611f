"""For the tests of serving: an exported run, and a stand-in for the server."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Bundle:
    """An exported run.

    Args:
        models: the folder of all models.
        name: of the model.
        path: `models/name/1`.
        printed: the output of the command.
    """

    models: Path
    name: str
    path: Path
    printed: str


@pytest.fixture(scope="session")
def run(rejecting):
    """The folder of a finished run that rejects out-of-distribution images."""
    return rejecting


@pytest.fixture(scope="session")
def bundle(run, made_once):
    """The export of `run` for TensorFlow Serving, as a `Bundle`. Tests must not change it."""
    pytest.importorskip("tensorflow_serving", reason="needs the extra serving")
    from keras_vit.cli.main import main
    from keras_vit.process.exit_codes import FINE

    def export(models):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert main(["export", str(run), "--to", str(models), "--name", "steel"]) == FINE
        models.with_name("bundles.txt").write_text(printed.getvalue())

    models = made_once("bundles", export)
    return Bundle(models, "steel", models / "steel" / "1", models.with_name("bundles.txt").read_text())


# Not shared by the session: while a server runs, gRPC warns about every process that later tests fork.
@pytest.fixture(scope="module")
def brightness_double(tmp_path_factory):
    """The stand-in for TensorFlow Serving, with two versions of the brightness model under the name vit."""
    pytest.importorskip("tensorflow_serving", reason="needs the extra serving")
    from tests.serving import brightness_model
    from tests.serving.serving_double import served

    folder = tmp_path_factory.mktemp("models") / "vit"
    for version in (1, 2):
        brightness_model.write(folder / str(version))
    with served(folder) as started:
        yield started


@pytest.fixture
def double(brightness_double):
    """The stand-in, with its default answers."""
    brightness_double.reset()
    yield brightness_double
    brightness_double.reset()


@pytest.fixture
def sleeps(monkeypatch):
    """The waits between the retries of the client, in seconds. The tests do not wait."""
    from keras_vit.serving import client

    waited: list[float] = []
    monkeypatch.setattr(client, "sleep", waited.append)
    return waited


@pytest.fixture
def bright_files(tmp_path):
    """Images for the brightness model."""
    from tests.serving.brightness_model import png
    from tests.serving.protocols import BRIGHTNESS

    paths = [tmp_path / f"{i}.png" for i in range(len(BRIGHTNESS))]
    for path, brightness in zip(paths, BRIGHTNESS, strict=True):
        path.write_bytes(png(brightness))
    return paths
