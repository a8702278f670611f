import math

import keras
import numpy as np
import pytest

from keras_vit import PositionEmbedding
from keras_vit.model.layers.position_embedding import resize_position_table, sincos2d_table
from tests.helpers.checks import check_layer, random_input, randomize, to_numpy

CASES = {
    "learned": (dict(grid=(3, 3)), (4, 10, 8), 1, 80),
    "learned, not square": (dict(grid=(2, 5)), (4, 11, 8), 1, 88),
    "learned, registers": (dict(grid=(2, 3), num_registers=2), (4, 9, 8), 1, 56),
    "learned, distillation token": (dict(grid=(2, 3), use_distilled=True), (4, 8, 8), 1, 64),
    "learned, distillation token, registers": (
        dict(grid=(2, 3), use_distilled=True, num_registers=2),
        (4, 10, 8),
        1,
        64,
    ),
    "learned, patches only": (dict(grid=(2, 3), class_position=False), (4, 7, 8), 1, 48),
    "learned, patches only, all first tokens": (
        dict(grid=(2, 3), use_distilled=True, num_registers=1, class_position=False),
        (4, 9, 8),
        1,
        48,
    ),
    "sincos2d, distillation token": (
        dict(grid=(2, 3), kind="sincos2d", use_distilled=True),
        (4, 8, 8),
        0,
        0,
    ),
    "learned, no class token": (dict(grid=(2, 3), use_cls=False), (4, 6, 8), 1, 48),
    "learned, registers only": (dict(grid=(2, 3), use_cls=False, num_registers=1), (4, 7, 8), 1, 48),
    "sincos2d": (dict(grid=(2, 3), kind="sincos2d"), (4, 7, 8), 0, 0),
    "sincos2d, registers": (dict(grid=(2, 3), kind="sincos2d", num_registers=2), (4, 9, 8), 0, 0),
    "sincos2d, no class token": (dict(grid=(2, 3), kind="sincos2d", use_cls=False), (4, 6, 8), 0, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_is_a_layer(case):
    kwargs, shape, weights, parameters = CASES[case]
    check_layer(
        PositionEmbedding,
        kwargs,
        shape,
        expected_output_shape=shape,
        expected_weights=weights,
        expected_parameters=parameters,
    )


@pytest.mark.parametrize("case", CASES)
def test_patches_get_the_table_and_registers_nothing(case):
    kwargs, shape, _, _ = CASES[case]
    layer = PositionEmbedding(**kwargs)
    layer.build(shape)
    x = random_input(shape)
    added = to_numpy(layer(x)) - x
    learned = kwargs.get("kind") != "sincos2d"
    first = kwargs.get("use_cls", True) + kwargs.get("use_distilled", False)
    registers = kwargs.get("num_registers", 0)
    if learned:
        (table,) = randomize(layer).get_weights()
        added = to_numpy(layer(x)) - x
        rows = list(table[0])
    else:
        rows = list(sincos(kwargs["grid"], 8))
    if not learned or not kwargs.get("class_position", True):
        rows = [np.zeros(8)] * first + rows
    expected = np.stack(rows[:first] + [np.zeros(8)] * registers + rows[first:])
    np.testing.assert_allclose(added, np.broadcast_to(expected, shape), atol=1e-5)


def sincos(grid, dim):
    """The table of MoCo v3, value by value: sin x, cos x, sin y, cos y, a quarter each."""
    quarter = dim // 4
    table = np.zeros((grid[0] * grid[1], dim))
    for y in range(grid[0]):
        for x in range(grid[1]):
            for i in range(quarter):
                omega = 10_000 ** -(i / (quarter - 1))
                row = table[y * grid[1] + x]
                row[i], row[quarter + i] = math.sin(x * omega), math.cos(x * omega)
                row[2 * quarter + i], row[3 * quarter + i] = math.sin(y * omega), math.cos(y * omega)
    return table


@pytest.mark.parametrize(("grid", "dim"), [((2, 3), 8), ((7, 7), 64), ((1, 16), 12)])
def test_sincos2d_is_the_published_formula(grid, dim):
    np.testing.assert_allclose(sincos2d_table(grid, dim), sincos(grid, dim), atol=1e-6)


def test_sincos2d_of_four_channels_has_one_frequency():
    expected = [[math.sin(x), math.cos(x), math.sin(y), math.cos(y)] for y in range(2) for x in range(3)]
    np.testing.assert_allclose(sincos2d_table((2, 3), 4), expected, atol=1e-6)


WRONG = [
    (dict(grid=(3,)), None, "grid must be (rows, columns), each 1 or more. Received: grid=(3,)"),
    (dict(grid=(3, 0)), None, "grid must be (rows, columns), each 1 or more. Received: grid=(3, 0)"),
    (dict(grid=(3, 3), kind="x"), None, "kind must be one of 'learned', 'sincos2d'. Received: kind='x'"),
    (
        dict(grid=(3, 3), num_registers=-1),
        None,
        "num_registers must be 0 or more. Received: num_registers=-1",
    ),
    (
        dict(grid=(3, 3)),
        (None, 9, 8),
        "grid=(3, 3), use_cls=True and num_registers=0 make 10 tokens. Received: 9 tokens",
    ),
    (
        dict(grid=(3, 3), use_distilled=True),
        (None, 10, 8),
        "grid=(3, 3), use_cls=True, use_distilled=True and num_registers=0 make 11 tokens. "
        "Received: 10 tokens",
    ),
    (dict(grid=(2, 2), num_registers=3), (None, 7, 8), "make 8 tokens. Received: 7 tokens"),
    (
        dict(grid=(3, 3), kind="sincos2d"),
        (None, 10, 6),
        '"sincos2d" needs a dim that 4 divides. Received: dim=6',
    ),
]


@pytest.mark.parametrize(("kwargs", "shape", "message"), WRONG)
def test_wrong_arguments(kwargs, shape, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        PositionEmbedding(**kwargs)(keras.KerasTensor(shape))
    assert message in str(caught.value)


def test_resize_to_the_same_grid_changes_nothing():
    table = random_input((1, 13, 5))
    np.testing.assert_array_equal(resize_position_table(table, (3, 4), (3, 4)), table)


@pytest.mark.parametrize("num_prefix", [0, 1, 2])
@pytest.mark.parametrize("new_grid", [(6, 8), (2, 2), (5, 3)])
def test_resize_keeps_the_class_row_and_constants(num_prefix, new_grid):
    table = np.full((1, num_prefix + 12, 5), 0.7, "float32")
    table[:, :num_prefix] = 5.0  # this value must not leak into the patches
    new = resize_position_table(table, (3, 4), new_grid, num_prefix)
    assert new.shape == (1, num_prefix + math.prod(new_grid), 5)
    assert new.dtype == "float32"
    np.testing.assert_array_equal(new[:, :num_prefix], 5.0)
    np.testing.assert_allclose(new[:, num_prefix:], 0.7, atol=1e-5)


def test_resize_does_not_mix_rows_and_columns():
    """A table that grows along its rows still does, and stays constant along its columns."""
    table = np.repeat(np.arange(4.0), 3).reshape(1, 12, 1)
    new = resize_position_table(table, (4, 3), (8, 5), num_prefix=0).reshape(8, 5)
    np.testing.assert_allclose(new, np.repeat(new[:, :1], 5, axis=1), atol=1e-5)
    assert (np.diff(new[1:-1, 0]) > 0.1).all()


@pytest.mark.parametrize("new_grid", [(6, 8), (2, 2), (5, 3), (14, 14)])
def test_resize_equals_that_of_pytorch(new_grid):
    torch = pytest.importorskip("torch")
    table = random_input((1, 1 + 35, 5))
    image = torch.tensor(table[:, 1:]).reshape(1, 7, 5, 5).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(image, new_grid, mode="bicubic", antialias=True)
    expected = expected.permute(0, 2, 3, 1).reshape(1, -1, 5).numpy()
    new = resize_position_table(table, (7, 5), new_grid)
    np.testing.assert_allclose(new[:, 1:], expected, atol=1e-4)


def test_resize_of_another_table():
    with pytest.raises(ValueError, match=r"Received: \(1, 9, 4\) for grid=\(3, 3\), num_prefix=1"):
        resize_position_table(np.zeros((1, 9, 4)), (3, 3), (6, 6))
