"""The preprocessing compared with PIL: every format and mode, the resize, the aspect policies."""

import dataclasses
import io
import json

import keras
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image

from keras_vit.data.decode import decode_image
from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import Preprocessing, prepare_pixels, preprocess, recorded, scale_pixels
from keras_vit.data.reading import read_images
from keras_vit.errors import InputError
from keras_vit.validation import from_plain, to_plain

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
    ("PNG", "rgba", 3, 0),
    ("PNG", "gray and alpha", 1, 0),
    ("PNG", "palette", 3, 0),
    ("PNG", "two levels", 1, 0),
    ("PNG", "16 bit", 1, 0),
    ("BMP", "gray", 1, 0),
    ("BMP", "rgb", 3, 0),
    ("BMP", "rgba", 3, 0),
    ("BMP", "palette", 3, 0),
    ("BMP", "gray palette", 1, 0),
    ("GIF", "gray", 3, 0),
    ("GIF", "palette", 3, 0),
    ("WEBP", "gray", 3, 0),
    ("WEBP", "rgb", 3, 0),
    ("WEBP", "rgba", 3, 0),
]


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pil_pixels(encoded):
    """float64 (height, width, 3) as PIL reads it, on white."""
    image = Image.open(io.BytesIO(encoded))
    if image.mode == "I;16":
        levels = np.asarray(image) / 257
        return np.repeat(levels[..., None], 3, axis=-1)
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, image).convert("RGB")).astype(float)


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


@pytest.mark.parametrize("wanted", [(224, 224), (96, 160), (600, 500)])
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "brick"])
def test_bicubic_equals_that_of_pillow(name, wanted):
    picture = getattr(skimage.data, name)()
    expected = np.asarray(Image.fromarray(picture).resize(wanted[::-1], Image.Resampling.BICUBIC))
    pixels = picture.reshape(*picture.shape[:2], -1)
    preprocessing = Preprocessing((*wanted, pixels.shape[-1]), interpolation="bicubic")
    found = prepare_pixels(pixels, preprocessing).numpy()
    difference = np.abs(found - expected.reshape(found.shape))
    assert difference.max() <= 2
    assert (difference > 0).mean() < 5e-3
    # Neither bilinear nor a bicubic resize in one pass would pass.
    other = prepare_pixels(pixels, dataclasses.replace(preprocessing, interpolation="bilinear")).numpy()
    assert (np.abs(other - found) > 0.5).mean() > 0.05
    one_pass = tf.image.resize(pixels.astype("float32"), wanted, "bicubic", antialias=True).numpy()
    assert (np.abs(one_pass - expected.reshape(found.shape)) > 0).mean() > 0.5


@pytest.mark.parametrize("aspect", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(40, 61), (61, 40), (5, 90), (28, 20), (1, 1), (1, 300)])
def test_bicubic_gives_whole_gray_levels_once_and_for_all(size, aspect):
    pixels = np.random.default_rng(0).choice([0, 255], (*size, 3)).astype("uint8")
    preprocessing = Preprocessing((28, 20, 3), aspect, interpolation="bicubic")
    found = prepare_pixels(pixels, preprocessing).numpy()
    np.testing.assert_array_equal(found, np.clip(np.rint(found), 0, 255))
    np.testing.assert_array_equal(prepare_pixels(found, preprocessing), found)


def test_bicubic_leaves_pixels_that_need_no_resize_as_they_are():
    pixels = np.random.default_rng(0).uniform(0, 255, (28, 20, 3)).astype("float32")
    found = prepare_pixels(pixels, Preprocessing((28, 20, 3), interpolation="bicubic"))
    np.testing.assert_array_equal(found, pixels)


# The scaling


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

SCALINGS = {
    "one number for each channel": (MEAN, STD),
    "one mean for all": ((0.1307,), STD),
    "one deviation for all": (MEAN, (0.3081,)),
    "mean alone": (MEAN, None),
    "deviation alone": (None, STD),
    "of the unit interval": ((0.0,), (1.0,)),
}


@pytest.mark.parametrize("kind", ["array", "TensorFlow", "Keras"])
@pytest.mark.parametrize(("mean", "std"), SCALINGS.values(), ids=SCALINGS)
def test_scaling(mean, std, kind):
    preprocessing = Preprocessing((4, 5, 3), mean=mean, std=std)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 4, 5, 3)).astype("float32")
    expected = np.empty(pixels.shape)
    for channel in range(3):
        center, spread = ((0.5,) if one is None else one for one in (mean, std))
        level = pixels[..., channel].astype("float64") / 255
        expected[..., channel] = (level - center[channel % len(center)]) / spread[channel % len(spread)]
    if kind == "Keras":
        images = keras.Input((4, 5, 3))
        found = keras.Model(images, scale_pixels(images, preprocessing))(pixels)
    else:
        found = scale_pixels(tf.constant(pixels) if kind == "TensorFlow" else pixels, preprocessing)
    found = np.asarray(found)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_without_mean_and_deviation_the_scaling_is_that_of_earlier_versions():
    levels = np.linspace(0, 255, 10_000, dtype="float32").reshape(100, 100, 1)
    found = scale_pixels(levels, Preprocessing((100, 100, 1)))
    np.testing.assert_array_equal(found, levels / 127.5 - 1.0)
    assert (found.min(), found.max()) == (-1, 1)


def test_a_gray_image_takes_one_number():
    preprocessing = Preprocessing((4, 4, 1), mean=(0.1307,), std=(0.3081,))
    found = scale_pixels(np.full((4, 4, 1), 255.0, "float32"), preprocessing)
    np.testing.assert_allclose(found, (1 - 0.1307) / 0.3081, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ({}, {"mean": [0.5] * 3, "std": [0.5] * 3}),
        ({"mean": MEAN, "std": (0.3,)}, {"mean": list(MEAN), "std": [0.3] * 3}),
    ],
)
def test_the_numbers_for_a_reader(given, numbers):
    assert Preprocessing((4, 4, 3), **given).numbers() == numbers


def test_it_goes_through_json_and_is_a_key():
    preprocessing = Preprocessing((4, 4, 3), "pad", list(MEAN), STD, "bicubic")
    plain = json.loads(json.dumps(to_plain(preprocessing)))
    assert plain == {
        "image_shape": [4, 4, 3],
        "aspect": "pad",
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "background": [255],
        "pixel_range": None,
        "exif_orientation": True,
        "tiff_page": None,
        "inverts_values": False,
        "shown_channels": None,
    }
    assert {preprocessing: 1}[from_plain(Preprocessing, plain)] == 1


def test_a_record_of_an_earlier_version_keeps_what_it_did():
    """It says nothing of turning, alpha or ranges: then nothing was turned, and alpha was dropped."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 4), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=turned)
    before = recorded({"image_shape": [4, 6, 3], "aspect": "stretch"})
    np.testing.assert_array_equal(read_pixels([buffer.getvalue()], before)[0], pixels[..., :3])
    np.testing.assert_array_equal(read_images([buffer.getvalue()], before).prepared[0], pixels[..., :3])
    assert recorded(json.loads(json.dumps(to_plain(before)))) == before
    now = Preprocessing((4, 6, 3))
    assert recorded(json.loads(json.dumps(to_plain(now)))) == now


@pytest.mark.parametrize(
    "plain", [None, [], {"image_shape": [4, 4, 3], "exif_orientation": "no"}, {"size": 1}]
)
def test_a_damaged_record_is_refused(plain):
    with pytest.raises(InputError):
        recorded(plain)


# The aspect


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

    @tf.function(input_signature=[tf.TensorSpec([None, None, None], tf.float32)])
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
        (((28, 28, 33),), r"up to 32 of measurement. Received: image_shape=\(28, 28, 33\)"),
        (
            ((28, 28, 1), "squash"),
            "aspect must be one of 'stretch', 'crop', 'pad'. Received: aspect='squash'",
        ),
        (
            ((28, 28, 3), "pad", (0.4, 0.5)),
            r"mean must be 3 numbers, one for each channel, or one. Received: mean=\(0.4, 0.5\)",
        ),
        (((28, 28, 1), "pad", MEAN), r"mean must be one number. Received: mean=\(0.485, 0.456, 0.406\)"),
        (((28, 28, 3), "pad", MEAN, ()), "std must be 3 numbers, one for each channel, or one"),
        (
            ((28, 28, 3), "pad", (123.675, 116.28, 103.53)),
            "mean must be 0.0 or more and 1.0 at most",
        ),
        (
            ((28, 28, 3), "pad", MEAN, (0.0, 0.2, 0.2)),
            "std must be above 0.0 and 1.0 at most. Received",
        ),
        (((28, 28, 3), "pad", MEAN, (-0.2,)), "std must be above 0.0 and 1.0 at most"),
        (((28, 28, 3), "pad", MEAN, (58.395,)), "std must be above 0.0 and 1.0 at most"),
        (((28, 28, 3), "pad", (float("nan"),)), "mean must be"),
        (((28, 28, 3), "pad", MEAN, (float("inf"),)), "std must be"),
        (((28, 28, 3), "pad", 0.5), "mean must be a list or None. Received: mean=0.5"),
        (((28, 28, 3), "pad", ("0.5",)), "mean must be"),
        (
            ((28, 28, 3), "pad", None, None, "lanczos"),
            "interpolation must be one of 'bilinear', 'bicubic'. Received: interpolation='lanczos'",
        ),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        Preprocessing(*arguments)
