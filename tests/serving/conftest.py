"""What the tests of serving share: a tiny run and its export, and a stand-in for the server.

Each is made once in each process of the tests.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers import tiny


@dataclass(frozen=True)
class Bundle:
    """An exported run.

    Args:
        models: the folder of all models.
        name: of the model.
        path: `models/name/1`.
    """

    models: Path
    name: str
    path: Path


@pytest.fixture(scope="session")
def drawn_images(tmp_path_factory):
    """Class folders with so many drawn images that rejection has validation images to be fitted on."""
    return tiny.draw(tmp_path_factory.mktemp("drawn") / "images", each=40)


@pytest.fixture(scope="session")
def run(drawn_images, tmp_path_factory):
    """The folder of a finished run that has learned to reject foreign images."""
    from keras_vit.cli.main import FINE, main

    out = tmp_path_factory.mktemp("runs") / "first"
    words = tiny.words(drawn_images, out, "--validation-fraction", 0.25, epochs=6)
    with tiny.size(), contextlib.redirect_stdout(io.StringIO()):
        assert main(words) == FINE
    return out


@pytest.fixture(scope="session")
def bundle(run, tmp_path_factory):
    """The export of `run` for TensorFlow Serving: a `Bundle`."""
    pytest.importorskip("tensorflow_serving", reason="needs the extra serving")
    from keras_vit.serving.bundle import export

    models = tmp_path_factory.mktemp("models")
    return Bundle(models, "steel", export(run, models, name="steel").path)


# Not for the session: while a server runs, gRPC complains of every process that later tests fork.
@pytest.fixture(scope="module")
def brightness_double(tmp_path_factory):
    """The stand-in for TensorFlow Serving with two versions of the brightness model, named vit."""
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
    """The same, told nothing."""
    brightness_double.reset()
    yield brightness_double
    brightness_double.reset()


@pytest.fixture
def sleeps(monkeypatch):
    """The waits between the client's retries, in seconds, none of which is waited."""
    from keras_vit.serving import client

    waited: list[float] = []
    monkeypatch.setattr(client, "sleep", waited.append)
    return waited


@pytest.fixture
def bright_files(tmp_path):
    """Images of the brightness model."""
    from tests.serving.asking import BRIGHTNESS
    from tests.serving.brightness_model import png

    paths = [tmp_path / f"{i}.png" for i in range(len(BRIGHTNESS))]
    for path, brightness in zip(paths, BRIGHTNESS, strict=True):
        path.write_bytes(png(brightness))
    return paths
