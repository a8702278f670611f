"""The preprocessing compared with PIL: every format and mode, the resize, the aspect policies."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_vit.data.preprocess import Preprocessing, decode_image, prepare_pixels, preprocess
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend

HEIGHT, WIDTH = 20, 30
LUMA = np.array([0.299, 0.587, 0.114])

# Smooth like a photograph, so that JPEG keeps it. No colour is gray.
RGB = Image.fromarray(
    np.clip(
        np.add.outer(5 * np.arange(HEIGHT), 4 * np.arange(WIDTH))[..., None] + np.array([10, 40, 0]), 0, 255
    ).astype(np.uint8)
)
GRAY = RGB.convert("L")
ALPHA = Image.linear_gradient("L").resize((WIDTH, HEIGHT))


def with_alpha(image):
    image = image.copy()
    image.putalpha(ALPHA)
    return image


def sixteen_bit():
    return Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 256 + 131)


IMAGES = {
    "gray": GRAY,
    "rgb": RGB,
    "rgba": with_alpha(RGB),
    "gray and alpha": with_alpha(GRAY),
    "palette": RGB.quantize(64),
    "gray palette": GRAY.quantize(64),
    "two levels": GRAY.convert("1"),
    "16 bit": sixteen_bit(),
    "cmyk": RGB.convert("CMYK"),
}

# format, image, channels as decoded, largest difference from PIL in 0..255
FILES = [
    ("JPEG", "gray", 1, 2),
    ("JPEG", "rgb", 3, 4),
    ("JPEG", "cmyk", 3, 4),
    ("PNG", "gray", 1, 0),
    ("PNG", "rgb", 3, 0),
    ("PNG", "rgba", 4, 0),
    ("PNG", "gray and alpha", 2, 0),
    ("PNG", "palette", 3, 0),
    ("PNG", "two levels", 1, 0),
    ("PNG", "16 bit", 1, 0),
    ("BMP", "gray", 1, 0),
    ("BMP", "rgb", 3, 0),
    ("BMP", "rgba", 4, 0),
    ("BMP", "palette", 3, 0),
    ("BMP", "gray palette", 1, 0),
    ("GIF", "gray", 3, 0),
    ("GIF", "palette", 3, 0),
    ("WEBP", "gray", 3, 0),
    ("WEBP", "rgb", 3, 0),
    ("WEBP", "rgba", 4, 0),
]


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pil_pixels(encoded):
    """float64 (height, width, 3) as PIL reads it, alpha dropped."""
    image = Image.open(io.BytesIO(encoded))
    if image.mode == "I;16":
        levels = np.asarray(image).astype(float) // 256
        return np.repeat(levels[..., None], 3, axis=-1)
    return np.asarray(image.convert("RGB")).astype(float)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "name", "decoded_channels", "tolerance"), FILES)
def test_a_file_is_read_like_pil(kind, name, decoded_channels, tolerance, channels):
    encoded = encode(IMAGES[name], kind)
    assert decode_image(encoded).shape == (HEIGHT, WIDTH, decoded_channels)

    found = preprocess(encoded, Preprocessing((HEIGHT, WIDTH, channels))).numpy()

    expected = pil_pixels(encoded)
    assert expected.std() > 20  # so the comparison can fail
    if channels == 1:
        expected = (expected @ LUMA)[..., None]
    assert found.shape == (HEIGHT, WIDTH, channels)
    assert found.dtype == np.float32
    assert -1 <= found.min() <= found.max() <= 1
    np.testing.assert_allclose(found, expected / 127.5 - 1, atol=tolerance / 127.5 + 1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_a_gray_file_keeps_its_values(kind, channels):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    encoded = encode(Image.fromarray(levels), kind)
    found = prepare_pixels(decode_image(encoded), Preprocessing((16, 16, channels))).numpy()
    np.testing.assert_array_equal(found, np.repeat(levels[..., None], channels, axis=-1))


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("GIF", "P", {}),
        ("WEBP", "P", {"lossless": True}),
        (
            "WEBP",
            "RGB",
            {"lossless": True},
        ),  # without alpha, TensorFlow would write past the end of the pixels
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {}),
    ],
)
def test_the_first_frame_of_an_animation_is_read(kind, mode, options):
    frames = [RGB.convert(mode), RGB.transpose(Image.Transpose.ROTATE_180).convert(mode)]
    encoded = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(encoded)).n_frames == 2
    found = decode_image(encoded).numpy()
    np.testing.assert_array_equal(found[..., :3], pil_pixels(encoded))


@pytest.mark.parametrize("padding", [0, 2, 3])
def test_a_bmp_whose_pixels_begin_after_a_gap(padding):
    encoded = encode(RGB.quantize(256), "BMP")
    start = int.from_bytes(encoded[10:14], "little")
    moved = (start + padding).to_bytes(4, "little")
    shifted = encoded[:10] + moved + encoded[14:start] + b"\0" * padding + encoded[start:]
    np.testing.assert_array_equal(decode_image(shifted).numpy(), pil_pixels(encoded))


@pytest.mark.parametrize(
    ("found", "wanted"),
    [((200, 200), (28, 28)), ((97, 211), (28, 56)), ((300, 40), (32, 32)), ((20, 30), (64, 64))],
)
def test_resize_equals_the_bilinear_filter_of_pil(found, wanted):
    pixels = np.random.default_rng(0).uniform(0, 255, found).astype(np.float32)
    expected = np.asarray(Image.fromarray(pixels).resize(wanted[::-1], Image.Resampling.BILINEAR))
    resized = prepare_pixels(pixels[..., None], Preprocessing((*wanted, 1))).numpy()[..., 0]
    np.testing.assert_allclose(resized, expected, atol=0.01)


def square_in_a_wide_image(height, width, side, background=40):
    """A white square at the centre of a dark image."""
    pixels = np.full((height, width, 1), background, np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    pixels[top : top + side, left : left + side] = 255
    return pixels


def box(pixels):
    """(height, width) of the bright part, and whether it is at the centre."""
    bright = pixels[..., 0] > 147
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    centred = rows[0] + rows[-1] == len(bright) - 1 and columns[0] + columns[-1] == bright.shape[1] - 1
    return (len(rows), len(columns)), centred


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("aspect", "expected"),
    [("stretch", (16, 8)), ("crop", (16, 16)), ("pad", (8, 8))],
)
def test_aspect_policies(aspect, expected, turned):
    pixels = square_in_a_wide_image(64, 128, 32)
    if turned:
        pixels, expected = pixels.transpose(1, 0, 2), expected[::-1]
    found = prepare_pixels(pixels, Preprocessing((32, 32, 1), aspect)).numpy()
    assert box(found) == (expected, True)
    corner = found[0, 0, 0]
    assert corner == pytest.approx(0 if aspect == "pad" else 40, abs=1e-4)


@pytest.mark.parametrize(
    ("image", "wanted", "border"),
    [
        ((64, 128), (32, 32), (8, 0)),
        ((128, 64), (32, 32), (0, 8)),
        ((50, 50), (16, 48), (0, 16)),
        ((4, 400), (28, 28), (13, 0)),  # thinner than a pixel
    ],
)
def test_pad_fills_with_black_and_keeps_all_of_the_image(image, wanted, border):
    encoded = encode(Image.fromarray(np.full(image, 255, np.uint8)), "PNG")
    found = preprocess(encoded, Preprocessing((*wanted, 1), "pad")).numpy()[..., 0]
    inside = np.zeros(wanted, bool)
    rows, columns = border
    inside[rows : wanted[0] - rows - (image == (4, 400)), columns : wanted[1] - columns] = True
    np.testing.assert_allclose(found[inside], 1, atol=1e-6)
    np.testing.assert_array_equal(found[~inside], -1)


@pytest.mark.parametrize("aspect", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 300)])
def test_the_smallest_and_thinnest_images(size, aspect):
    pixels = np.full((*size, 3), 200, np.uint8)
    found = prepare_pixels(pixels, Preprocessing((28, 14, 1), aspect)).numpy()
    assert found.shape == (28, 14, 1)
    assert found.max() == pytest.approx(200, abs=1e-3)


@pytest.mark.parametrize("aspect", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_graph_reads_every_file_like_eager_mode(channels, aspect):
    preprocessing = Preprocessing((14, 28, channels), aspect)
    files = [encode(IMAGES[name], kind) for kind, name, _, _ in FILES]
    eager = np.stack([preprocess(file, preprocessing) for file in files])

    dataset = tf.data.Dataset.from_tensor_slices(files).map(lambda file: preprocess(file, preprocessing))
    assert dataset.element_spec.shape == (14, 28, channels)
    np.testing.assert_array_equal(np.stack(list(dataset.as_numpy_iterator())), eager)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None], tf.uint8)])
    def serve(pixels):
        return prepare_pixels(pixels, preprocessing) / 127.5 - 1

    served = np.stack([serve(decode_image(file)) for file in files])
    np.testing.assert_allclose(served, eager, atol=1e-6)


@pytest.mark.parametrize(
    "encoded",
    {
        "empty": b"",
        "text": b"this is not an image",
        "cut JPEG": encode(RGB, "JPEG")[:300],
        "cut PNG": encode(RGB, "PNG")[:80],
        "cut GIF": encode(RGB, "GIF")[:900],
        "cut WebP": encode(RGB, "WEBP")[:60],
        "cut BMP": encode(RGB, "BMP")[:200],
        "cut palette BMP": encode(RGB.quantize(64), "BMP")[:400],
        "TIFF": encode(RGB, "TIFF"),
        "BMP of one bit a pixel": encode(GRAY.convert("1"), "BMP"),
    }.items(),
    ids=lambda item: item[0],
)
def test_bytes_that_are_not_an_image(encoded):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(encoded[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((28, 28),), r"image_shape must be a list of 3 whole numbers. Received: image_shape=\(28, 28\)"),
        (((28, 28, 1, 1),), "image_shape must be"),
        (((0, 28, 1),), r"image_shape must be 1 or more. Received: image_shape=\(0, 28, 1\)"),
        (((28, -28, 3),), "image_shape must be 1 or more"),
        (((28, 28, 2),), r"read as 1 \(gray\) or 3 \(RGB\) channels. Received: image_shape=\(28, 28, 2\)"),
        (((28, 28, 4),), "read as 1"),
        (
            ((28, 28, 1), "squash"),
            "aspect must be one of 'stretch', 'crop', 'pad'. Received: aspect='squash'",
        ),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        Preprocessing(*arguments)
