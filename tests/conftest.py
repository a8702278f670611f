import contextlib
import fcntl
import io
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

# The files that take longest start first, so that at the end no process waits for another one.
FIRST = (
    "tests/search/test_killed_workers.py",
    "tests/search/test_killed.py",
    "tests/search/test_devices.py",
    "tests/training/test_train.py",
    "tests/distribution/test_runs.py",
    "tests/search/test_hyperband.py",
    "tests/distribution/test_equal.py",
    "tests/serving/test_export.py",
    "tests/training/test_interrupted.py",
)


def pytest_configure(config):
    """The processes of a test run share the cache of JAX and the folders of `made_once`."""
    # With two processes on two cores, more threads of torch would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if "KERAS_VIT_TESTS_SHARED" not in os.environ:
        shared = tempfile.TemporaryDirectory(prefix="keras-vit-tests-")
        config.add_cleanup(shared.cleanup)
        config.add_cleanup(lambda: os.environ.pop("KERAS_VIT_TESTS_SHARED"))
        os.environ["KERAS_VIT_TESTS_SHARED"] = shared.name
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(shared.name, "jax"))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        if os.environ.get("KERAS_BACKEND") == "jax":
            # The models are tiny: XLA takes longer to compile them than to run them. The layer tests of
            # EncoderBlock took 28 s of CPU with this, 38 s without.
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0".strip()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `-n`, all tests of a file run in one process, and files start in the order below."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(config, items):
    """Leaves out tests that run on TensorFlow only, and puts the long files first."""
    import keras

    left_out = []
    if keras.backend.backend() != "tensorflow":
        left_out = [item for item in items if item.get_closest_marker("same_on_every_backend")]
    long = {item.path for item in items if item.get_closest_marker("long")}
    order = {ROOT / name: number for number, name in enumerate(FIRST)}
    kept = [item for item in items if item not in left_out]
    kept.sort(key=lambda item: order.get(item.path, len(order) + (item.path not in long)))
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    import keras

    keras.utils.set_random_seed(0)
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="session")
def made_once():
    """`made_once(name, make)` is a path that `make(path)` makes once for all processes of the tests.

    Tests must not change it, since other processes read it too.
    """
    shared = Path(os.environ["KERAS_VIT_TESTS_SHARED"])

    def path_of(name, make):
        path, done = shared / name, shared / f"{name}.done"
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(path, ignore_errors=True)  # left by a failed attempt
                make(path)
                done.touch()
        return path

    return path_of


@pytest.fixture(scope="module")
def tiny_size():
    """Adds the small sizes of the tests to the table of sizes, for one module."""
    from tests.helpers import tiny

    with tiny.size():
        yield


@pytest.fixture(scope="session")
def images(made_once):
    """A folder of drawn images in class folders."""
    from tests.helpers import tiny

    return made_once("images", tiny.draw)


@pytest.fixture(scope="session")
def drawn_images(made_once):
    """A folder of drawn images in class folders, enough for the 24 validation images of `rejecting`."""
    from tests.helpers import tiny

    return made_once("drawn_images", lambda path: tiny.draw(path, each=40))


@pytest.fixture(scope="session")
def rejecting(drawn_images, made_once):
    """The folder of a finished run that rejects out-of-distribution images."""
    from keras_vit.cli.main import main
    from keras_vit.process.exit_codes import FINE
    from tests.helpers import tiny

    def train(out):
        command = tiny.command(drawn_images, out, "--validation-fraction", 0.25, epochs=6)
        with tiny.size(), contextlib.redirect_stdout(io.StringIO()):
            assert main(command) == FINE

    return made_once("rejecting", train)


@pytest.fixture(scope="session")
def trained(images, made_once):
    """The folder of a finished run, and the output of the command."""
    from keras_vit.cli.main import main
    from keras_vit.process.exit_codes import FINE
    from tests.helpers import tiny

    def train(out):
        printed = io.StringIO()
        with tiny.size(), contextlib.redirect_stdout(printed):
            assert main(tiny.command(images, out, epochs=2)) == FINE
        out.with_name("trained.txt").write_text(printed.getvalue())

    out = made_once("trained", train)
    return out, out.with_name("trained.txt").read_text()
