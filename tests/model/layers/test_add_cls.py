import numpy as np
import pytest

from keras_vit import AddCLS
from tests.helpers.checks import check_layer, random_input, randomize, to_numpy

CASES = {
    "class token": (dict(), (4, 9, 8), (4, 10, 8), 8),
    "registers too": (dict(num_registers=3), (4, 9, 8), (4, 13, 8), 32),
    "distillation token": (dict(use_distilled=True), (4, 9, 8), (4, 11, 8), 16),
    "all three": (dict(num_registers=3, use_distilled=True), (4, 9, 8), (4, 14, 8), 40),
    "registers only": (dict(use_cls=False, num_registers=2), (4, 9, 8), (4, 11, 8), 16),
}


@pytest.mark.parametrize("case", CASES)
def test_is_a_layer(case):
    kwargs, shape, output_shape, parameters = CASES[case]
    check_layer(
        AddCLS,
        kwargs,
        shape,
        expected_output_shape=output_shape,
        expected_weights=1,
        expected_parameters=parameters,
    )


@pytest.mark.parametrize("kwargs", [kwargs for kwargs, *_ in CASES.values()], ids=CASES)
def test_adds_the_same_tokens_to_every_image(kwargs):
    layer = AddCLS(**kwargs)
    x = random_input((3, 4, 5))
    layer.build(x.shape)
    (tokens,) = randomize(layer).get_weights()
    for image, out in zip(x, to_numpy(layer(x)), strict=True):
        np.testing.assert_array_equal(out, np.concatenate([tokens[0], image]))


def test_the_class_token_starts_small_but_not_at_zero():
    layer = AddCLS()
    layer.build((None, 4, 4096))
    (tokens,) = layer.get_weights()
    assert tokens.std() == pytest.approx(0.02, rel=0.1)


WRONG = [
    (dict(num_registers=-1), "num_registers must be 0 or more. Received: num_registers=-1"),
    (dict(use_cls=False), "AddCLS must add something. Received: use_cls=False, num_registers=0"),
]


@pytest.mark.parametrize(("kwargs", "message"), WRONG)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        AddCLS(**kwargs)
    assert message in str(caught.value)
