"""The pixels that a viewer shows: orientation, alpha, 16 bits, kinds of files; compared with Pillow."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_vit.data.decode import Decoding, decode_image, rgb
from keras_vit.data.orientation import orientation
from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.probe import UnreadableImage, probe_image, why_unreadable
from keras_vit.errors import InputError
from tests.serving.decode_one import decode_or_blank

pytestmark = pytest.mark.same_on_every_backend

RNG = np.random.default_rng(0)
RGB = Image.fromarray(RNG.integers(0, 256, (24, 36, 3), dtype=np.uint8))
GRAY = RGB.convert("L")
PALETTE = RGB.quantize(16)
ALPHA = Image.fromarray(RNG.integers(0, 256, (24, 36), dtype=np.uint8))

show = tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)])
state = tf.function(orientation, input_signature=[tf.TensorSpec([], tf.string)])
serve = tf.function(decode_or_blank, input_signature=[tf.TensorSpec([], tf.string)])


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_alpha(image):
    image = image.copy()
    image.putalpha(ALPHA)
    return image


def shown(encoded, background=(255, 255, 255)):
    """float64 (height, width, 3): what Pillow shows on a background."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGBA")
    under = Image.new("RGBA", image.size, (*background, 255))
    return np.asarray(Image.alpha_composite(under, image).convert("RGB")).astype(float)


def exif(value, endian=">", before=(), kind="H", count=1):
    """Exif data with some entries before the orientation: (tag, type, count, value or offset)."""
    entries = [*before, (0x0112, {"H": 3, "I": 4}[kind], count, value)]
    packed = b"".join(
        struct.pack(endian + "HHI", tag, type_, n)
        + (struct.pack(endian + "HH", number, 0) if type_ == 3 else struct.pack(endian + "I", number))
        for tag, type_, n, number in entries
    )
    start = b"II*\0" if endian == "<" else b"MM\0*"
    return b"Exif\0\0" + start + struct.pack(endian + "IH", 8, len(entries)) + packed + bytes(4)


# Orientation


as_stored = tf.function(
    lambda encoded: decode_image(encoded, Decoding(exif_orientation=False)),
    input_signature=[tf.TensorSpec([], tf.string)],
)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pixels_are_turned_as_the_file_says(kind, value):
    encoded = encode(RGB, kind, exif=exif(value), **({"lossless": True} if kind == "WEBP" else {}))
    found, expected = show(encoded).numpy(), shown(encoded)
    assert found.shape == expected.shape == ((24, 36, 3) if value < 5 else (36, 24, 3))
    np.testing.assert_allclose(found, expected, atol=8 if kind == "JPEG" else 0)
    stored = as_stored(encoded).numpy()
    assert stored.shape == (24, 36, 3)
    assert value == 1 or not np.array_equal(stored, found)


def segment(marker, body):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


PLAIN = encode(RGB, "JPEG")
JPEGS = {
    "little endian": (exif(6, "<"), 6),
    "a long number": (exif(6, kind="I"), 6),
    "after other entries": (exif(6, "<", before=[(0x010F, 2, 4, 0), (0x0100, 3, 1, 7)]), 6),
    "after an entry whose offset is wrong": (exif(6, before=[(0x010F, 2, 99, 2**31)]), 6),
    "two numbers": (exif(6, count=2), 1),
    "no such orientation": (exif(9), 1),
    "orientation 0": (exif(0), 1),
    "another mark": (exif(6).replace(b"MM\0*", b"MM\0x"), 1),
    "an offset past the end": (exif(6)[:10] + struct.pack(">I", 2**31 - 1) + exif(6)[14:], 1),
    "a negative offset": (exif(6)[:10] + b"\xff" * 4 + exif(6)[14:], 1),
    "more entries than there are": (exif(6)[:14] + b"\xff\xff" + exif(6)[16:], 6),
    "cut short": (exif(6)[:20], 1),
    "nothing": (b"Exif\0\0", 1),
}


@pytest.mark.parametrize(("data", "value"), JPEGS.values(), ids=JPEGS)
def test_odd_exif_data(data, value):
    encoded = PLAIN[:2] + segment(0xE1, data) + PLAIN[2:]
    assert state(encoded) == value
    assert show(encoded).shape == ((24, 36, 3) if value == 1 else (36, 24, 3))


@pytest.mark.parametrize(
    "before",
    [
        segment(0xFE, b"Exif\0\0 in a comment"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>") + segment(0xED, b"Photoshop 3.0\0"),
        segment(0xE2, bytes(65_000)) * 3,
        b"\xff\xff\xff",  # fill bytes
    ],
)
def test_exif_data_behind_other_segments(before):
    encoded = PLAIN[:2] + before + segment(0xE1, exif(8)) + PLAIN[2:]
    assert state(encoded) == 8
    assert Image.open(io.BytesIO(encoded)).getexif()[0x0112] == 8


def test_exif_data_behind_the_pixels_do_not_count():
    assert state(PLAIN[:-2] + segment(0xE1, exif(6)) + PLAIN[-2:]) == 1
    assert state(PLAIN[:2] + segment(0xFE, exif(6)) + PLAIN[2:]) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_data_are_read_like_pillow_or_not_at_all(kind):
    """Pillow gives up where one entry is damaged; here the others still count."""
    encoded = encode(RGB, kind, exif=exif(6, before=[(0x010F, 2, 4, 0), (0x0100, 3, 1, 7)]))
    at = encoded.index({"JPEG": b"Exif\0\0", "PNG": b"eXIf", "WEBP": b"EXIF"}[kind])
    rng, same = np.random.default_rng(0), 0
    for _ in range(200):
        changed = bytearray(encoded)
        for _ in range(rng.integers(1, 4)):
            place = min(at - 6 + rng.integers(0, 70), len(changed) - 1)
            changed[place] = rng.choice([0, 1, 3, 4, 6, 8, 255, rng.integers(0, 256)])
        found = int(state(bytes(changed)))
        try:
            expected = Image.open(io.BytesIO(changed)).getexif().get(0x0112, 1)
        except Exception:  # of a dozen kinds
            expected = None
        assert found in range(1, 9)
        if expected in range(2, 9):
            assert found == expected
            same += 1
    assert same > 5  # so the comparison can fail


# Alpha

ANIMATED = {"save_all": True, "append_images": [with_alpha(RGB).rotate(180)]}
FILES_WITH_ALPHA = {
    "RGBA": (with_alpha(RGB), "PNG", {}),
    "gray and alpha": (with_alpha(GRAY), "PNG", {}),
    "transparent gray": (GRAY, "PNG", {"transparency": int(np.asarray(GRAY)[0, 0])}),
    "transparent colour": (RGB, "PNG", {"transparency": tuple(map(int, np.asarray(RGB)[0, 0]))}),
    "transparent entry": (PALETTE, "PNG", {"transparency": int(np.asarray(PALETTE)[0, 0])}),
    "alpha of each entry": (PALETTE, "PNG", {"transparency": bytes(range(0, 256, 16))}),
    "two levels": (GRAY.convert("1"), "PNG", {"transparency": 0}),
    "GIF": (PALETTE, "GIF", {"transparency": int(np.asarray(PALETTE)[0, 0])}),
    "animated GIF": (with_alpha(RGB), "GIF", ANIMATED),
    "WebP": (with_alpha(RGB), "WEBP", {"lossless": True}),
    "lossy WebP": (with_alpha(RGB), "WEBP", {}),
    "animated WebP": (
        with_alpha(RGB), "WEBP", {**ANIMATED, "lossless": True},
    ),
    "TIFF": (with_alpha(RGB), "TIFF", {"compression": "tiff_lzw"}),
    "AVIF": (with_alpha(RGB), "AVIF", {"quality": 100}),
    "a BMP, which has none": (with_alpha(RGB), "BMP", {}),
}  # fmt: skip


@pytest.mark.parametrize("background", [(10, 200, 30), pytest.param((255,), marks=pytest.mark.long)])
def test_alpha_is_composed_on_the_background(background):
    files = [encode(image, kind, **options) for image, kind, options in FILES_WITH_ALPHA.values()]
    prepared = read_pixels(files, Preprocessing((24, 36, 3), background=background))
    for name, encoded, again in zip(FILES_WITH_ALPHA, files, prepared, strict=True):
        found = probe_image(encoded, Decoding(background))[1].astype(float)
        expected = shown(encoded, rgb(background))
        np.testing.assert_allclose(np.broadcast_to(found, expected.shape), expected, atol=1, err_msg=name)
        np.testing.assert_allclose(again, expected, atol=1, err_msg=name)


def test_alpha_of_pixels_in_memory_is_composed_too():
    pixels = np.asarray(with_alpha(RGB))
    expected = shown(encode(with_alpha(RGB), "PNG"))
    np.testing.assert_allclose(probe_image(pixels)[1], expected, atol=1)
    np.testing.assert_allclose(read_pixels([pixels], Preprocessing((24, 36, 3)))[0], expected, atol=1)


@pytest.mark.parametrize("transparent", [True, False])
@pytest.mark.parametrize(("screen", "frame"), [((40, 30), (5, 6)), ((10, 10), (5, 6)), ((36, 24), (0, 0))])
def test_the_first_frame_of_a_gif_lies_on_its_screen(screen, frame, transparent):
    index = int(np.asarray(PALETTE)[0, 0])
    encoded = bytearray(encode(PALETTE, "GIF", **({"transparency": index} if transparent else {})))
    encoded[6:10] = struct.pack("<HH", *screen)
    at = encoded.index(b"\x2c\0\0\0\0")
    encoded[at + 1 : at + 5] = struct.pack("<HH", *frame)
    found = show(bytes(encoded)).numpy()
    assert found.shape == (max(screen[1], frame[1] + 24), max(screen[0], frame[0] + 36), 3)
    inside = found[frame[1] : frame[1] + 24, frame[0] : frame[0] + 36]
    plain = np.asarray(PALETTE.convert("RGB")).copy()
    plain[np.asarray(PALETTE) == index] = 255 if transparent else plain[0, 0]
    np.testing.assert_array_equal(inside, plain)
    assert found.sum() - inside.sum() == 255 * 3 * (found[..., 0].size - inside[..., 0].size)


# 16 bits

VALUES = (np.arange(24 * 36).reshape(24, 36) % 120 + 100).astype(np.uint16)


def png_of_16_bits(values, color_type, more=b""):
    """A PNG of big-endian values (height, width, channels)."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def big_endian_tiff(values):
    data = values.astype(">u2").tobytes()
    entries = [(256, 36), (257, 24), (258, 16), (259, 1), (262, 1), (273, 134), (277, 1), (278, 24)]
    packed = [struct.pack(">HHIHH", tag, 3, 1, number, 0) for tag, number in entries]
    packed.append(struct.pack(">HHII", 279, 4, 1, len(data)))
    directory = b"MM\0*" + struct.pack(">IH", 8, 9) + b"".join(packed) + bytes(4)
    return directory.ljust(134, b"\0") + data


OF_16_BITS = {
    "PNG": encode(Image.fromarray(VALUES), "PNG"),
    "TIFF": encode(Image.fromarray(VALUES), "TIFF"),
    "TIFF with LZW": encode(Image.fromarray(VALUES), "TIFF", compression="tiff_lzw"),
    "deflated TIFF": encode(Image.fromarray(VALUES), "TIFF", compression="tiff_adobe_deflate"),
    "big-endian TIFF": big_endian_tiff(VALUES),
}


@pytest.mark.parametrize("limits", [None, (120, 180)])
def test_values_of_16_bits_are_scaled_by_the_range(limits):
    low, high = limits or (0, 65535)
    expected = np.clip((VALUES.astype(float) - low) * 255 / (high - low), 0, 255)[..., None]
    prepared = read_pixels(list(OF_16_BITS.values()), Preprocessing((24, 36, 1), pixel_range=limits))
    for name, encoded, again in zip(OF_16_BITS, OF_16_BITS.values(), prepared, strict=True):
        info, found = probe_image(encoded, Decoding(pixel_range=limits))
        assert info.bits == 16
        np.testing.assert_allclose(found, expected, atol=1e-3, err_msg=name)
        np.testing.assert_allclose(again, expected, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colour_and_alpha_of_16_bits(channels):
    values = np.random.default_rng(channels).integers(0, 65536, (24, 36, channels)).astype(np.uint16)
    expected = values / 257
    if channels in (2, 4):
        alpha = expected[..., -1:] / 255
        expected = expected[..., :-1] * alpha + 255 * (1 - alpha)
    found = show(png_of_16_bits(values, {2: 4, 3: 2, 4: 6}[channels])).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_range_refuses_8_bits_in_every_graph():
    encoded, limits = encode(GRAY, "PNG"), (120, 180)
    with pytest.raises(UnreadableImage, match="8 bits per channel, but the range of values, 120 to 180"):
        probe_image(encoded, Decoding(pixel_range=limits))
    with pytest.raises(UnreadableImage, match="8 bits"):
        probe_image(np.asarray(GRAY)[..., None], Decoding(pixel_range=limits))
    served = tf.function(
        lambda file: decode_or_blank(file, Decoding(pixel_range=limits)),
        input_signature=[tf.TensorSpec([], tf.string)],
    )
    for file, expected in ((encoded, False), (OF_16_BITS["PNG"], True), (OF_16_BITS["TIFF"], False)):
        assert served(file)[1].numpy() == expected


# Kinds of files


def bmp_of_16_bits(pixels, masks):
    """A BMP with bit fields of 5, 6 or 5 bits; pixels (height, width, 3)."""
    red, green, blue = (pixels[..., i].astype(int) for i in range(3))
    bits = 6 if masks[1] == 0x7E0 else 5
    packed = (red >> 3) << (5 + bits) | (green >> (8 - bits)) << 5 | blue >> 3
    data = packed[::-1].astype("<u2").tobytes()
    height, width = packed.shape
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 3, len(data), 0, 0, 0, 0)
    body = header + struct.pack("<III", *masks)
    return b"BM" + struct.pack("<IHHI", 14 + len(body) + len(data), 0, 0, 14 + len(body)) + body + data


KINDS = {
    "PNG of 1 bit": encode(GRAY.convert("1"), "PNG"),
    "BMP of 1 bit": encode(GRAY.convert("1"), "BMP"),
    "TIFF of 1 bit": encode(GRAY.convert("1"), "TIFF", compression="group4"),
    "BMP of 5, 6 and 5 bits": bmp_of_16_bits(np.asarray(RGB), (0xF800, 0x7E0, 0x1F)),
    "BMP of 5, 5 and 5 bits": bmp_of_16_bits(np.asarray(RGB), (0x7C00, 0x3E0, 0x1F)),
    "CMYK JPEG": encode(ALPHA.resize((3, 2)).resize((36, 24)).convert("CMYK"), "JPEG", quality=100),
    "gray TIFF": encode(GRAY, "TIFF", compression="tiff_lzw"),
    "colour TIFF": encode(RGB, "TIFF", compression="tiff_adobe_deflate"),
    "TIFF with JPEG": encode(RGB, "TIFF", compression="jpeg", quality=100),
    "TIFF with a palette": encode(PALETTE, "TIFF"),
    "CMYK TIFF": encode(RGB.convert("CMYK"), "TIFF"),
    "AVIF": encode(RGB, "AVIF"),
    "turned TIFF": encode(RGB, "TIFF", exif={0x0112: 6}),
    "turned AVIF": encode(RGB, "AVIF", exif=exif(6)),
}
NATIVE = {"PNG of 1 bit", "CMYK JPEG"}


def test_every_kind_is_read_like_pillow_or_declined_by_the_served_graph():
    for kind, encoded in KINDS.items():
        info, found = probe_image(encoded)
        expected = shown(encoded)
        np.testing.assert_allclose(np.broadcast_to(found, expected.shape), expected, atol=4, err_msg=kind)
        assert info.converted == (kind not in NATIVE), kind
        assert serve(encoded)[1].numpy() == (kind in NATIVE), kind
    files = [encoded for kind, encoded in KINDS.items() if "turned" not in kind]
    prepared = read_pixels(files, Preprocessing((24, 36, 3)))
    for encoded, found in zip(files, prepared, strict=True):
        np.testing.assert_allclose(found, shown(encoded), atol=4)


def tiff_with(tag, value):
    image = Image.fromarray(np.asarray(GRAY))
    return encode(image, "TIFF", tiffinfo={tag: value})


NOT_READ = {
    "TIFF of real numbers": (
        encode(Image.fromarray(np.asarray(GRAY).astype("float32")), "TIFF"),
        "its values are float32, and nothing says which of them are black and white",
    ),
    "preview of a RAW file": (tiff_with(254, 1), "a RAW image"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(40), "a HEIC file, which is not read"),
    "JPEG 2000": (encode(RGB, "JPEG2000"), "a JPEG 2000 file, which is not read"),
    "PPM": (encode(RGB, "PPM"), "a PNM file, which is not read"),
}  # fmt: skip


@pytest.mark.parametrize(("encoded", "reason"), NOT_READ.values(), ids=NOT_READ)
def test_a_valid_file_that_is_not_read_is_not_called_damaged(encoded, reason):
    found = why_unreadable(encoded)
    assert found is not None
    assert found.startswith(reason)
    assert "save it as PNG" in found or "develop it" in found or "--window LOW HIGH" in found
    assert "damaged" not in found


# Damage


def test_a_damaged_jpeg_that_is_decoded_has_a_warning():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    encoded = encode(Image.fromarray(noise), "JPEG", quality=90)
    assert probe_image(encoded)[0].warning is None
    middle = len(encoded) // 2
    damaged = bytearray(encoded)
    damaged[middle : middle + 4000 : 50] = b"\x55" * 80
    info, pixels = probe_image(bytes(damaged))
    assert (np.abs(pixels.astype(int) - probe_image(encoded)[1]).max(axis=(1, 2)) > 60).sum() > 20
    assert info.warning is not None
    assert info.warning.startswith("decoded, but damaged (Corrupt JPEG data: ")


@pytest.mark.parametrize(
    "encoded",
    [
        *(
            encode(RGB, "JPEG", quality=90, progressive=p, subsampling=s)
            for p in (True, False)
            for s in (0, 2)
        ),
        encode(GRAY, "JPEG", restart_marker_rows=1),
        encode(RGB.convert("CMYK"), "JPEG"),
        encode(RGB, "JPEG", keep_rgb=True),
        encode(PALETTE, "GIF"),
    ],
)
def test_a_sound_file_has_no_warning(encoded):
    assert probe_image(encoded)[0].warning is None


# The fields of a run


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"background": (1, 2)}, "background must be one gray level, or red, green and blue"),
        ({"background": (256,)}, "background"),
        ({"pixel_range": (5, 5)}, r"pixel_range \(--window\) must have the lower value first"),
        ({"pixel_range": (0, 1, 2)}, r"pixel_range \(--window\) must be two values"),
        ({"pixel_range": (0, 1, 2, 3)}, "two for each channel of measurement"),
        ({"pixel_range": (0, float("nan"))}, "pixel_range"),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(InputError, match=message):
        Preprocessing((4, 4, 1), **fields)
