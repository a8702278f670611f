import contextlib
import io
import os
import tempfile

import pytest


def pytest_configure(config):
    """JAX compiles the same tiny models again and again: the processes of one run of the tests share them."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = tempfile.TemporaryDirectory(prefix="jax-cache-")
        config.add_cleanup(cache.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, whatever ran before it."""
    import keras

    keras.utils.set_random_seed(0)
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="module")
def tiny_size():
    """The small size of the tests is a size like any other, for one module."""
    from tests.helpers import tiny

    with tiny.size():
        yield


@pytest.fixture(scope="module")
def images(tiny_size, tmp_path_factory):
    """A folder of drawn images in class folders."""
    from tests.helpers import tiny

    return tiny.draw(tmp_path_factory.mktemp("images") / "images")


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """The folder of a finished run, and what the command printed."""
    from keras_vit.cli.main import FINE, main
    from tests.helpers import tiny

    out, said = tmp_path_factory.mktemp("runs") / "first", io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(tiny.words(images, out, epochs=2)) == FINE
    return out, said.getvalue()


def pytest_collection_modifyitems(items):
    import keras

    if keras.backend.backend() == "tensorflow":
        return
    skip = pytest.mark.skip(reason="the same on every backend: runs on the default one")
    for item in items:
        if item.get_closest_marker("same_on_every_backend"):
            item.add_marker(skip)
