"""The parts that all pages share: pictures, and numbers as text."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from keras_vit.report import kit

pytestmark = pytest.mark.same_on_every_backend


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((28, 28, 1), (224, 224)),
        ((28, 14, 3), (112, 224)),
        ((1, 1, 1), (224, 224)),
        ((224, 224, 3), (224, 224)),
        ((400, 300, 3), (300, 400)),
        ((2000, 1000, 3), (256, 512)),
    ],
)
def test_a_picture_is_enlarged_without_smoothing(shape, expected):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = base64.b64decode(kit.picture(pixels).removeprefix("data:image/png;base64,"))
    image = Image.open(io.BytesIO(content))
    assert image.size == expected
    if max(shape) <= 512:
        times = expected[1] // shape[0]
        shown = np.asarray(image).reshape(*image.size[::-1], shape[2])
        assert np.array_equal(shown, pixels.repeat(times, axis=0).repeat(times, axis=1))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 1), np.float32),
        np.zeros((0, 8, 1), np.uint8),
    ],
)
def test_wrong_pixels_are_refused(pixels):
    with pytest.raises(ValueError, match=re.escape(f"Received: shape {pixels.shape}, dtype {pixels.dtype}")):
        kit.picture(pixels)


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (kit.percent, 0.8639, "86.4 %"),
        (kit.percent, 0, "0.0 %"),
        (kit.percent, 1, "100.0 %"),
        (kit.percent, 0.9999, "> 99.9 %"),
        (kit.percent, 0.0001, "< 0.1 %"),
        (kit.percent, None, kit.UNKNOWN),
        (kit.count, 508166, "508,166"),
        (kit.compact, 32320000, "32.32 M"),
        (kit.compact, 999, "999"),
        (kit.compact, 0, "0"),
        (kit.compact, 2e9, "2.00 G"),
        (kit.compact, None, kit.UNKNOWN),
        (kit.output_shape, (1, 49, 64), "49 \u00d7 64"),
        (kit.output_shape, (None, 49, 64), "49 \u00d7 64"),
        (kit.output_shape, [[None, 6], [None, 64]], "6, 64"),
        (kit.output_shape, "(None, 6)", "(None, 6)"),
        (kit.output_shape, None, kit.UNKNOWN),
        (kit.shape, (28, 14, 3), "28 \u00d7 14 \u00d7 3"),
        (kit.output_shape, (None,), kit.UNKNOWN),
        (kit.duration, 0.25, "0.2 s"),
        (kit.duration, 59.9, "1 min 0 s"),
        (kit.duration, 312.4, "5 min 12 s"),
        (kit.duration, 7322, "2 h 2 min"),
        (kit.words, True, "yes"),
        (kit.words, None, "none"),
        (kit.words, [], "none"),
        (kit.words, (1, 0.5), "1, 0.5"),
        (kit.words, 3e-4, "0.0003"),
        (kit.words, {"name": "a.jpg", "part": None, "likeness": 0.5}, "name: a.jpg, likeness: 0.5"),
        (kit.words, {}, "none"),
    ],
)
def test_numbers_as_text(write, value, expected):
    assert write(value).replace("\u00a0", " ") == expected


@pytest.mark.parametrize(
    ("number", "digits", "expected"),
    [(0.391, 2, "+0.39"), (-0.9, 2, "\u22120.90"), (-0.001, 2, "0.00"), (14.23, 1, "+14.2"), (0, 1, "0.0")],
)
def test_signed_numbers(number, digits, expected):
    assert kit.signed(number, digits) == expected


def test_nested_settings_become_titled_groups():
    settings = {"seed": 1, "model_config": {"dim": 64, "a_b": {"c": True}}, "seconds": 61.0, "name": None}
    assert kit.groups(settings) == [
        ("", [("seed", "1"), ("duration", "1\u00a0min 1\u00a0s"), ("name", "none")]),
        ("model settings", [("width of a token", "64")]),
        ("model settings, a b", [("c", "yes")]),
    ]


def test_names_break_after_underscores_and_slashes():
    assert kit.breakable("a_b/<c>") == "a_<wbr>b/<wbr>&lt;c&gt;"


def test_the_name_of_an_option_is_not_broken_into_two_lines():
    found = kit.whole_options("try <b> (--init auto) or --image-size")
    assert str(found) == (
        'try &lt;b&gt; (<span class="option">--init</span> auto) or <span class="option">--image-size</span>'
    )
