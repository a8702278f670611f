import pytest

from tests.helpers import tiny


@pytest.fixture(scope="module")
def more_images(tmp_path_factory):
    return tiny.draw(tmp_path_factory.mktemp("images") / "images", each=20)
