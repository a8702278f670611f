"""Images of another size than the first: the grid follows, positions follow, and no row is made up."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit import AddCLS, EncoderBlock, MeanPool, PatchEmbed, PositionEmbedding, ViT
from keras_vit.model.layers.position_embedding import resize_position_table, sincos2d_table
from tests.helpers.checks import random_input, randomize, to_numpy

STEMS = {
    "linear": dict(patch_size=4),
    "tuple": dict(patch_size=(2, 8)),
    "norm": dict(patch_size=4, patch_norm=True),
    "conv": dict(patch_size=4, stem="conv"),
}
stems = pytest.mark.parametrize("stem", STEMS)


def cut(images, rows, columns):
    """Patches by slices: (batch, rows * columns, values)."""
    high, wide = images.shape[1] // rows, images.shape[2] // columns
    return np.stack(
        [
            images[:, r * high : (r + 1) * high, c * wide : (c + 1) * wide].reshape(len(images), -1)
            for r in range(rows)
            for c in range(columns)
        ],
        axis=1,
    )


@pytest.mark.parametrize("patch_size", [4, (2, 8), [8, 2], (4, 4)])
@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (2, 32, 32, 3), (3, 8, 40, 3)])
def test_patches_of_any_size(patch_size, shape):
    layer = PatchEmbed(dim=5, patch_size=patch_size)
    layer(random_input((2, 16, 16, 3)))
    kernel, bias = (to_numpy(weight) for weight in randomize(layer).weights)
    height, width = patch_size if isinstance(patch_size, tuple | list) else (patch_size, patch_size)
    x = random_input(shape, seed=1)
    expected = cut(x, shape[1] // height, shape[2] // width) @ kernel + bias
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-4)
    assert layer.compute_output_shape(shape) == expected.shape


@stems
def test_a_map_is_the_tokens_row_by_row(stem):
    tokens = PatchEmbed(dim=8, **STEMS[stem])
    patches = PatchEmbed(dim=8, **STEMS[stem], feature_map=True)
    patches.build((2, 16, 16, 3))
    for shape in ((2, 16, 16, 3), (2, 8, 24, 3)):
        x = random_input(shape)
        expected = to_numpy(tokens(x))
        patches.set_weights(tokens.get_weights())
        made = to_numpy(patches(x))
        assert made.shape == patches.compute_output_shape(shape) == (*made.shape[:3], 8)
        np.testing.assert_allclose(made.reshape(expected.shape), expected, atol=1e-6)


@stems
def test_channels_first(stem):
    last = PatchEmbed(dim=8, **STEMS[stem], data_format="channels_last")
    first = PatchEmbed(dim=8, **STEMS[stem], data_format="channels_first")
    x = random_input((2, 16, 24, 8))  # all of the sizes divide in each order
    expected = to_numpy(last(x))
    first.build((None, 8, 16, 24))
    first.set_weights(last.get_weights())
    turned = np.transpose(x, (0, 3, 1, 2))
    np.testing.assert_allclose(to_numpy(first(turned)), expected, atol=1e-6)
    assert first.compute_output_shape(turned.shape) == expected.shape
    restored = PatchEmbed.from_config(first.get_config())
    assert restored.data_format == "channels_first"


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


@stems
def test_the_data_format_of_keras_is_that_of_the_layer_and_of_its_files(stem, channels_first):
    layer = PatchEmbed(dim=8, **STEMS[stem])
    assert layer.data_format == "channels_first"
    x = random_input((2, 3, 16, 24))
    expected = to_numpy(layer(x))
    keras.config.set_image_data_format("channels_last")
    copy = PatchEmbed.from_config(layer.get_config())
    copy.build(x.shape)
    copy.set_weights(layer.get_weights())
    np.testing.assert_allclose(to_numpy(copy(x)), expected, atol=1e-6)


def test_a_config_of_an_earlier_version_is_of_channels_last(channels_first):
    config = PatchEmbed(dim=8, patch_size=4, data_format="channels_last").get_config()
    for name in ("data_format", "feature_map", "kernel_initializer", "kernel_regularizer"):
        del config[name]
    layer = PatchEmbed.from_config(config)
    assert layer.get_config()["data_format"] == "channels_last"
    assert tuple(layer(random_input((2, 16, 24, 3))).shape) == (2, 24, 8)


REFUSED = [
    ((2, 18, 16, 3), "patch_size must divide the height and the width of the image. .*image 18x16"),
    ((2, 16, 3, 3), "image 16x3"),
    ((2, 16, 16, 1), "axis -?[13] of input shape to have value 3"),
    ((2, 3, 16, 16), r"axis -?[13] of input shape to have value 3|image 3x16"),
    ((16, 16, 3), "expected ndim=4, found ndim=3"),
]


@stems
@pytest.mark.parametrize(("shape", "message"), REFUSED)
def test_images_that_do_not_fit(stem, shape, message):
    layer = PatchEmbed(dim=8, **{**STEMS[stem], "patch_size": 4})
    layer(random_input((2, 16, 16, 3)))
    with pytest.raises(ValueError, match=message):
        layer(random_input(shape))
    with pytest.raises(ValueError, match=message):
        keras.Sequential([layer]).predict(random_input(shape), verbose=0)


WRONG = [
    (dict(patch_size=(4,)), r"patch_size must be a whole number, or \(height, width\)"),
    (dict(patch_size=(4, 4, 4)), r"patch_size must be a whole number, or \(height, width\)"),
    (dict(patch_size=(4, 0)), "patch_size must be 1 or more"),
    (dict(patch_size="4"), "patch_size must be a whole number"),
    (dict(patch_size=(4, 2.5)), "patch_size must be a whole number"),
    (dict(patch_size=(4, 8), stem="conv"), r"patches must be square. Received: patch_size=\(4, 8\)"),
    (dict(patch_size=4, data_format="channel_first"), 'data_format must be "channels_last"'),
    (dict(patch_size=4, feature_map="yes"), "feature_map must be true or false"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_wrong_arguments(given, message):
    with pytest.raises(ValueError, match=message):
        PatchEmbed(dim=8, **given)


def test_channels_must_be_known():
    with pytest.raises(ValueError, match="number of channels"):
        PatchEmbed(dim=8, patch_size=4)(keras.Input((16, 16, None)))


# Positions.

KINDS = {
    "learned": dict(),
    "fixed": dict(kind="sincos2d"),
    "all first tokens": dict(use_distilled=True, num_registers=2),
    "no rows for the first": dict(use_distilled=True, num_registers=2, class_position=False),
}


def table_of(layer, grid):
    """The rows for the patches of a grid."""
    if layer.kind == "sincos2d":
        return sincos2d_table(grid, 8)
    (table,) = layer.get_weights()
    return resize_position_table(table, layer.grid, grid, layer.num_first_rows)[0, layer.num_first_rows :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", [(3, 4), (6, 8), (2, 6), (1, 1)])
def test_tokens_of_another_grid(kind, grid):
    layer = PositionEmbedding(grid=(3, 4), **KINDS[kind])
    count = layer.num_first + grid[0] * grid[1]
    x = random_input((2, count, 8))
    layer(random_input((2, layer.num_first + 12, 8)))
    randomize(layer)
    added = to_numpy(layer(x, grid=grid)) - x
    rows = table_of(layer, grid)
    np.testing.assert_allclose(added[:, layer.num_first :], np.stack([rows] * 2), atol=1e-5)
    first = np.zeros((layer.num_first, 8))
    if layer.num_first_rows:
        first[: layer.num_first_rows] = layer.get_weights()[0][0, : layer.num_first_rows]
    np.testing.assert_allclose(added[:, : layer.num_first], np.stack([first] * 2), atol=1e-6)


@pytest.mark.parametrize("kind", ["learned", "fixed"])
@pytest.mark.parametrize("grid", [(3, 4), (6, 8), (2, 6), (4, 3)])
def test_maps_of_any_grid(kind, grid):
    layer = PositionEmbedding(grid=(3, 4), use_cls=False, **KINDS[kind])
    tokens = keras.Input((None, None, 8))
    model = keras.Model(tokens, layer(tokens))
    randomize(layer)
    x = random_input((2, *grid, 8))
    expected = x + table_of(layer, grid).reshape(*grid, 8)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-5)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


def test_positions_of_another_grid_are_trained():
    layer = PositionEmbedding(grid=(2, 2), use_cls=False)
    tokens = keras.Input((None, None, 8))
    model = keras.Model(tokens, layer(tokens))
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    before = to_numpy(layer.table)
    x = random_input((4, 4, 6, 8))
    model.fit(x, x + 1, verbose=0)
    assert (abs(to_numpy(layer.table) - before).min(axis=-1) > 1e-4).all()


ONE = (None, 1, 8)
WRONG_TOKENS = [
    ((2, 1, 8), None, "make 5 tokens. Received: 1 tokens; for another image size give the call its grid="),
    ((2, 17, 8), None, "make 5 tokens. Received: 17 tokens"),
    ((2, 5, 8), (4, 4), "make 17 tokens. Received: 5 tokens"),
    ((2, 17, 8), (4, 0), r"grid must be \(rows, columns\), each 1 or more"),
    ((2, 17, 8), 4, r"grid must be \(rows, columns\), each 1 or more"),
    ((2, 2, 2, 8), None, "A feature map has no class token and no registers"),
    ((2, 5, 6), None, "axis -1 of input shape to have value 8"),
]


@pytest.mark.parametrize(("shape", "grid", "message"), WRONG_TOKENS)
def test_tokens_that_do_not_fit(shape, grid, message):
    layer = PositionEmbedding(grid=(2, 2))
    layer(random_input((2, 5, 8)))
    given = {} if grid is None else {"grid": grid}
    for x in (random_input(shape), keras.Input(shape[1:])):
        with pytest.raises(ValueError, match=message):
            layer(x, **given)


def test_a_map_tells_its_grid():
    layer = PositionEmbedding(grid=(2, 2), use_cls=False)
    with pytest.raises(ValueError, match=r"A feature map tells its grid. Received: grid=\(2, 2\)"):
        layer(random_input((2, 2, 2, 8)), grid=(2, 2))


def test_one_token_does_not_become_many_when_tensorflow_learns_their_number():
    tokens = keras.Input((None, 8))
    model = keras.Model(tokens, PositionEmbedding(grid=(2, 2))(tokens))
    assert tuple(model(random_input((2, 5, 8))).shape) == (2, 5, 8)
    with pytest.raises(Exception, match="for another image size give the call its grid"):
        model.predict(random_input((2, 1, 8)), verbose=0)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        call = tf.function(model, input_signature=[tf.TensorSpec((None, None, 8))])
        assert call(random_input((2, 5, 8))).shape == (2, 5, 8)
        with pytest.raises(tf.errors.InvalidArgumentError, match="for another image size give the call its"):
            call(random_input((2, 1, 8)))


# Models.


def model_of_any_size(kind="learned", stem="linear"):
    images = keras.Input((None, None, 3))
    x = PatchEmbed(dim=8, **STEMS[stem], feature_map=True)(images)
    x = PositionEmbedding(grid=(4, 4), kind=kind, use_cls=False)(x)
    x = keras.layers.Reshape((-1, 8))(x)
    x = AddCLS()(x)
    x = EncoderBlock(num_heads=2, mlp_dim=12)(x)
    return keras.Model(images, MeanPool(num_prefix_tokens=1)(x))


@pytest.mark.parametrize(("kind", "stem"), [("learned", "norm"), ("sincos2d", "conv")])
def test_a_model_of_images_of_any_size(kind, stem):
    model = model_of_any_size(kind, stem)
    for shape in ((4, 16, 16, 3), (4, 16, 48, 3)):
        x = random_input(shape)
        answers = model.predict(x, batch_size=3, verbose=0)
        assert answers.shape == (4, 8)
        np.testing.assert_allclose(answers, to_numpy(model(x)), atol=1e-5)
        # An answer is of its own image.
        np.testing.assert_allclose(model.predict(x[::-1], verbose=0)[::-1], answers, atol=1e-5)
    with pytest.raises(Exception, match="patch_size must divide"):  # TensorFlow learns it when it runs
        model.predict(random_input((2, 18, 18, 3)), verbose=0)


@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (2, 4, 16, 3), (2, 8, 8, 1), (2, 3, 8, 8)])
def test_a_vit_is_of_one_size(shape):
    """4 x 16 pixels make as many patches as 8 x 8."""
    model = ViT((8, 8, 3), 3, 4, dim=8, depth=1, num_heads=2)
    for answer in (model, lambda x: model.predict(x, verbose=0)):
        with pytest.raises(
            ValueError, match=r"is incompatible with the layer|is made for images of \(8, 8, 3\)"
        ):
            answer(random_input(shape))


def test_a_subclassed_model_has_an_answer_per_image():
    class Small(keras.Model):
        def __init__(self):
            super().__init__()
            self.patches = PatchEmbed(dim=8, patch_size=4)
            self.first = AddCLS()
            self.positions = PositionEmbedding(grid=(4, 4))
            self.block = EncoderBlock(num_heads=2, mlp_dim=12)
            self.head = keras.layers.Dense(3)

        def call(self, images):
            _, height, width, _ = ops.shape(images)
            grid = (height // 4, width // 4)
            x = self.positions(self.first(self.patches(images)), grid=grid)
            return self.head(self.block(x)[:, 0])

    model = Small()
    assert model.predict(random_input((4, 16, 16, 3)), verbose=0).shape == (4, 3)
    assert model.predict(random_input((4, 32, 32, 3)), verbose=0).shape == (4, 3)
    with pytest.raises(Exception, match="patch_size must divide"):
        model.predict(random_input((4, 30, 32, 3)), verbose=0)


def test_unknown_sizes_are_refused_when_tensorflow_learns_them():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the sizes of other backends are known when a model is called")
    import tensorflow as tf

    for stem in STEMS:
        model = model_of_any_size(stem=stem)
        call = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))])
        x = random_input((4, 32, 16, 3))
        np.testing.assert_allclose(call(x), to_numpy(model(x)), atol=1e-5)
        for wrong in ((2, 17, 16, 3), (16, 16, 18, 3), (4, 3, 4, 3)):
            with pytest.raises(tf.errors.InvalidArgumentError, match="patch_size must divide"):
                call(ops.convert_to_tensor(random_input(wrong)))
