"""What `model.export` writes is called by TensorFlow, for every option of every layer."""

import keras
import numpy as np
import pytest

from keras_vit import AddCLS, EncoderBlock, MeanPool, PatchEmbed, PositionEmbedding, ViT
from tests.helpers.checks import random_input, randomize
from tests.helpers.layer_cases import LAYERS

pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() == "torch",
        reason="Keras exports a SavedModel of a plain Dense on torch neither",
    ),
    # Keras gives it to jax2tf.
    pytest.mark.filterwarnings("ignore:The `native_serialization` parameter:DeprecationWarning"),
]


def served(model, folder):
    import tensorflow as tf

    model.export(folder, verbose=False)
    loaded = tf.saved_model.load(folder)

    def call(x):
        x = [tf.constant(one) for one in x] if isinstance(x, list) else tf.constant(x)
        outputs = loaded.serve(x)
        return [
            np.asarray(y, "float32") for y in (outputs if isinstance(outputs, list | tuple) else [outputs])
        ]

    return call


@pytest.mark.long
def test_every_option_of_every_layer(tmp_path):
    """All of them in one model, one branch each: one export."""
    inputs, outputs = [], []
    for kind, given, shape in LAYERS.values():
        inputs.append(keras.Input(shape[1:]))
        layer = kind(**given)
        outputs.append(layer(inputs[-1]))
        randomize(layer)
    model = keras.Model(inputs, outputs)
    call = served(model, tmp_path / "model")
    x = [random_input((3, *shape[1:])) for _, _, shape in LAYERS.values()]
    answers = model.predict(x, verbose=0)  # compiled: on JAX, calls compile each operation alone
    for name, ours, theirs in zip(LAYERS, answers, call(x), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=2e-5, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_images_of_any_size(stem, tmp_path):
    images = keras.Input((None, None, 3))
    x = PatchEmbed(dim=8, patch_size=4, stem=stem, patch_norm=stem == "linear", feature_map=True)(images)
    kinds = {"linear": "learned", "conv": "sincos2d"}
    x = PositionEmbedding(grid=(4, 4), kind=kinds[stem], use_cls=False)(x)
    x = keras.layers.Reshape((-1, 8))(x)
    x = EncoderBlock(num_heads=2, mlp_dim=12)(AddCLS()(x))
    model = keras.Model(images, MeanPool(num_prefix_tokens=1)(x))
    if stem == "conv" and keras.backend.backend() == "jax":  # whose convolutions have no gradient then
        with pytest.raises(ValueError, match='stem="conv" cannot be exported for images of any size on JAX'):
            model.export(tmp_path / "model", verbose=False)
        return
    call = served(model, tmp_path / "model")
    for shape in ((2, 16, 16, 3), (3, 32, 8, 3)):
        x = random_input(shape)
        np.testing.assert_allclose(call(x)[0], model.predict(x, verbose=0), atol=1e-5)
    wrong = random_input((2, 18, 16, 3))
    if keras.backend.backend() == "jax":  # which cannot refuse a size that comes later
        assert np.isnan(call(wrong)[0]).all()
    else:
        with pytest.raises(Exception, match=r"reshape|\[\[|InvalidArgument"):
            call(wrong)


VITS = {
    "map": dict(pooling="map", num_registers=1, qk_norm=True, layer_scale=0.1, head_hidden_dim=8),
    "conv": dict(stem="conv", pooling="gap", activation="swiglu", position="sincos2d", remat=True),
    "both": dict(pooling="token+gap", activation="quick_gelu", drop_path_rate=0.1, patch_norm=True),
    "distilled": dict(pooling="token+distilled", activation="gelu_tanh", pre_norm=True, dropout_rate=0.1),
    "headless": dict(num_classes=0, pooling="all", final_norm="pooled"),
}
if keras.backend.backend() == "jax":  # which compiles each for seconds; the layers are all above
    VITS = {"map": VITS["map"]}


@pytest.mark.long
def test_a_vit_of_every_option(tmp_path):
    images, outputs = keras.Input((8, 8, 3)), []
    for name, given in VITS.items():
        base = dict(num_classes=3, patch_size=4, dim=8, depth=2, num_heads=2, mlp_dim=12, name=name)
        outputs.append(ViT((8, 8, 3), **{**base, **given})(images))
    model = randomize(keras.Model(images, outputs), scale=0.1)
    call = served(model, tmp_path / "model")
    x = random_input((3, 8, 8, 3))
    answers = model.predict(x, verbose=0)
    answers = answers if isinstance(answers, list) else [answers]
    for name, ours, theirs in zip(VITS, answers, call(x), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=2e-5, err_msg=name)
