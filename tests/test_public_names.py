"""The public names do not depend on the order of imports."""

from importlib.util import find_spec

import pytest

import keras_vit

pytestmark = pytest.mark.same_on_every_backend


@pytest.mark.parametrize("name", [name for name in keras_vit.__all__ if name != "__version__"])
def test_no_module_has_the_name_of_a_public_function(name):
    # Importing such a module would replace the function with the module.
    assert find_spec(f"keras_vit.{name}") is None
    assert callable(getattr(keras_vit, name)) or name == "RECIPES"
