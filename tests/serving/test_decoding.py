"""Decoding in the served graph: the pixels of training, or one black pixel and a mark; never an error."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_vit.data.preprocess import decode_image
from keras_vit.serving.decoding import MAX_PIXELS, declared_pixels, decode_or_blank

pytestmark = pytest.mark.same_on_every_backend

decode = tf.function(decode_or_blank, input_signature=[tf.TensorSpec([], tf.string)])
declared = tf.function(declared_pixels, input_signature=[tf.TensorSpec([], tf.string)])


def picture(mode="RGB", size=(37, 23)):
    rng = np.random.default_rng(0)
    channels = {"L": (), "LA": (2,), "P": (3,), "1": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    smooth = rng.integers(0, 256, (3, 5, *channels), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    made = Image.fromarray(smooth, {"P": "RGB", "1": "L"}.get(mode, mode)).resize(size)
    return made.convert(mode) if mode in ("P", "1") else made


def file(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of_16_bits():
    return file(Image.fromarray((np.arange(37 * 23).reshape(23, 37) * 70).astype("uint16")), "PNG")


def animation(kind):
    frames = [picture("RGB").rotate(90 * i) for i in range(3)]
    return file(frames[0], kind, save_all=True, append_images=frames[1:])


FILES = {
    "gray JPEG": file(picture("L"), "JPEG"),
    "colour JPEG": file(picture(), "JPEG"),
    "progressive JPEG": file(picture(), "JPEG", progressive=True),
    "JPEG with Exif before its size": file(picture(), "JPEG", exif=b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0" * 40),
    "CMYK JPEG": file(picture("CMYK"), "JPEG"),
    "gray PNG": file(picture("L"), "PNG"),
    "gray PNG with alpha": file(picture("LA"), "PNG"),
    "colour PNG": file(picture(), "PNG"),
    "PNG with alpha": file(picture("RGBA"), "PNG"),
    "PNG with a palette": file(picture("P"), "PNG"),
    "PNG of 1 bit": file(picture("1"), "PNG"),
    "PNG of 16 bits": png_of_16_bits(),
    "BMP with a palette": file(picture("L"), "BMP"),
    "colour BMP": file(picture(), "BMP"),
    "GIF": file(picture("P"), "GIF"),
    "animated GIF": animation("GIF"),
    "WebP": file(picture(), "WEBP"),
    "lossless WebP": file(picture(), "WEBP", lossless=True),
    "WebP with alpha": file(picture("RGBA"), "WEBP"),
    "lossless WebP with alpha": file(picture("RGBA"), "WEBP", lossless=True),
    "animated WebP": animation("WEBP"),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_pixels_are_those_of_training(kind):
    pixels, decoded = decode(FILES[kind])
    assert decoded
    np.testing.assert_array_equal(pixels, decode_image(tf.constant(FILES[kind])))


@pytest.mark.parametrize("kind", FILES)
def test_the_size_is_known_before_anything_is_decoded(kind):
    frames = 3 if kind == "animated GIF" else 1  # all of them are decoded before the first is there
    assert declared(FILES[kind]) == 37 * 23 * frames


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(width, height):
    """A valid black PNG of 1 bit a pixel."""
    row = b"\0" * ((width + 7) // 8 + 1)
    packer = zlib.compressobj(9)
    body = b"".join([packer.compress(row) for _ in range(height)] + [packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def patched(encoded, at, value):
    return encoded[:at] + value + encoded[at + len(value) :]


def jpeg_of(width, height):
    encoded = FILES["gray JPEG"]
    return patched(encoded, encoded.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


BAD = {
    "0 bytes": b"",
    "1 byte": b"\x89",
    "text": b"this is no image",
    "random bytes": np.random.default_rng(0).bytes(5000),
    "only a JPEG's first bytes": b"\xff\xd8\xff",
    "JPEG cut short": FILES["colour JPEG"][:-200],
    "PNG cut short": FILES["colour PNG"][:-40],
    "PNG's header only": FILES["colour PNG"][:24],
    "GIF cut short": FILES["GIF"][:60],
    "BMP cut short": FILES["colour BMP"][:90],
    "BMP without its palette": FILES["BMP with a palette"][:60],
    "WebP cut short": FILES["WebP"][:50],
    "TIFF": file(picture(), "TIFF"),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "PNG of no width": patched(FILES["colour PNG"], 16, struct.pack(">I", 0)),
    "PNG bomb": png_bomb(8192, 4097),
    "JPEG that claims 65500 x 65500": jpeg_of(65500, 65500),
    "GIF whose frame claims 65535 x 65535": patched(
        FILES["GIF"], FILES["GIF"].index(b"\x2c\0\0\0\0") + 5, b"\xff" * 4
    ),
    "BMP that claims 2**31 rows": patched(FILES["colour BMP"], 18, b"\xff\xff\xff\x7f" * 2),
    "BMP of rows downwards that claims as many": patched(FILES["colour BMP"], 18, b"\xff\xff\0\0\1\0\0\x80"),
    "WebP that claims 16384 x 16384": patched(FILES["lossless WebP"], 21, b"\xff\xff\xff\x0f"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_comes_out_blank_and_marked(kind):
    pixels, decoded = decode(BAD[kind])
    assert not decoded
    np.testing.assert_array_equal(pixels, np.zeros((1, 1, 1)))


def test_the_largest_image_that_is_taken():
    pixels, decoded = decode(png_bomb(8192, 4096))
    assert decoded
    assert pixels.shape[0] * pixels.shape[1] == MAX_PIXELS
