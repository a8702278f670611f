"""The parts that the page is made of: pictures that can be seen, cells that can be read, numbers in words."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from keras_vit.report import run as report
from keras_vit.report import run_plots as plots

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
def test_picture_is_large_and_not_blurred(shape, expected):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = base64.b64decode(plots.picture(pixels).removeprefix("data:image/png;base64,"))
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
def test_picture_refuses(pixels):
    with pytest.raises(ValueError, match=re.escape(f"Received: shape {pixels.shape}, dtype {pixels.dtype}")):
        plots.picture(pixels)


@pytest.mark.parametrize("colour", [plots.BLUE, plots.ORANGE])
@pytest.mark.parametrize("share", [0, *np.linspace(0.001, 1, 101)])
def test_every_cell_can_be_read(colour, share):
    """Contrast of 4.5 to 1, as the Web Content Accessibility Guidelines ask of text."""
    style = dict(part.split(": ") for part in report.shade(colour, share).split("; "))
    background = re.findall(r"\d+", style.get("background", "rgb(255, 255, 255)"))
    text = style["color"].removeprefix("#")
    text = text if len(text) == 6 else "".join(2 * digit for digit in text)
    dark, light = sorted(
        0.2126 * red + 0.7152 * green + 0.0722 * blue
        for red, green, blue in (
            [channel(int(c)) for c in background],
            [channel(int(text[i : i + 2], 16)) for i in (0, 2, 4)],
        )
    )
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def channel(value):
    return value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (report.percent, 0.8639, "86.4 %"),
        (report.percent, 0, "0.0 %"),
        (report.percent, 1, "100.0 %"),
        (report.percent, 0.9999, "> 99.9 %"),
        (report.percent, 0.0001, "< 0.1 %"),
        (report.percent, None, report.UNKNOWN),
        (report.count, 508166, "508,166"),
        (report.compact, 32320000, "32.32 M"),
        (report.compact, 999, "999"),
        (report.compact, 0, "0"),
        (report.compact, 2e9, "2.00 G"),
        (report.compact, None, report.UNKNOWN),
        (report.output_shape, (1, 49, 64), "49 \u00d7 64"),
        (report.output_shape, (None, 49, 64), "49 \u00d7 64"),
        (report.output_shape, [[None, 6], [None, 64]], "6, 64"),
        (report.output_shape, "(None, 6)", "(None, 6)"),
        (report.output_shape, None, report.UNKNOWN),
        (report.shape, (28, 14, 3), "28 \u00d7 14 \u00d7 3"),
        (report.output_shape, (None,), report.UNKNOWN),
        (report.duration, 0.25, "0.2 s"),
        (report.duration, 59.9, "1 min 0 s"),
        (report.duration, 312.4, "5 min 12 s"),
        (report.duration, 7322, "2 h 2 min"),
        (report.words, True, "yes"),
        (report.words, None, "none"),
        (report.words, [], "none"),
        (report.words, (1, 0.5), "1, 0.5"),
        (report.words, 3e-4, "0.0003"),
        (report.words, {"name": "a.jpg", "part": None, "likeness": 0.5}, "name: a.jpg, likeness: 0.5"),
        (report.words, {}, "none"),
    ],
)
def test_numbers_in_words(write, value, expected):
    assert write(value).replace("\u00a0", " ") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, ["3"]),
        ([], ["none"]),
        (["a", "b"], ["a, b"]),
        ([["a", "b"], ["c", "d"]], ["a, b", "c, d"]),
        ([{"name": "a"}], ["name: a"]),
        ({"a": 1, "b": 2}, ["a: 1, b: 2"]),
        ({"a": {"all": 1}, "b": {}}, ["a (all: 1)", "b (none)"]),
    ],
)
def test_lines(value, expected):
    assert report.lines(value) == expected


@pytest.mark.parametrize(
    ("copy", "line"),
    [
        (
            {"first": "a.jpg", "second": "b.jpg", "likeness": 0.9779, "exact": False, "first_part": "train"}
            | {"second_part": "test"},
            "a.jpg (train) ~ b.jpg (test), 0.98",
        ),
        (
            {"first": "a.jpg", "second": "b.jpg", "likeness": 1.0, "exact": True, "first_part": None}
            | {"second_part": None},
            "a.jpg = b.jpg",
        ),
    ],
)
def test_pairs_of_the_audit_are_one_short_line(copy, line):
    assert report.lines([copy]) == [line]
