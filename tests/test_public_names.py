"""The public names do not depend on the order of imports."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

import keras_vit
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.same_on_every_backend


@pytest.mark.parametrize("name", [name for name in keras_vit.__all__ if name != "__version__"])
def test_no_module_has_the_name_of_a_public_function(name):
    # Importing such a module would replace the function with the module.
    assert find_spec(f"keras_vit.{name}") is None
    assert callable(getattr(keras_vit, name)) or name == "RECIPES"


def test_with_keras_an_import_is_enough_to_load_models():
    """`keras.saving.load_model` finds what is registered. Without Keras the import stays light."""
    code = (
        "import sys, keras_vit; assert 'keras' not in sys.modules; del sys.modules['keras_vit']\n"
        "import keras, keras_vit; known = keras.saving.get_custom_objects()\n"
        "assert {'keras_vit>ViT', 'keras_vit>EncoderBlock'} <= known.keys(), sorted(known)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
