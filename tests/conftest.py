import pytest


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
    import tiny

    with tiny.size():
        yield


@pytest.fixture(scope="module")
def images(tiny_size, tmp_path_factory):
    """A folder of drawn images in class folders."""
    import tiny

    return tiny.draw(tmp_path_factory.mktemp("images") / "images")


def pytest_collection_modifyitems(items):
    import keras

    if keras.backend.backend() == "tensorflow":
        return
    skip = pytest.mark.skip(reason="the same on every backend: runs on the default one")
    for item in items:
        if item.get_closest_marker("same_on_every_backend"):
            item.add_marker(skip)
