"""Image files for the served graph: of every kind that it accepts, damaged ones, and decompression bombs."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(mode="RGB", size=(37, 23)):
    """Coloured squares with smooth borders; (width, height)."""
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


def animation(kind, **options):
    frames = [picture("RGB").rotate(90 * i) for i in range(3)]
    return file(frames[0], kind, save_all=True, append_images=frames[1:], **options)


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


def patched(encoded, at, value):
    """A file with other bytes at one position."""
    return encoded[:at] + value + encoded[at + len(value) :]


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(width, height):
    """A valid black PNG with 1 bit per pixel."""
    row = b"\0" * ((width + 7) // 8 + 1)
    packer = zlib.compressobj(9)
    body = b"".join([packer.compress(row) for _ in range(height)] + [packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def gif_of_frames(*sizes):
    """A valid GIF with black frames of these sizes (width, height)."""
    files = [file(Image.new("P", size), "GIF") for size in sizes]
    starts = [content.index(b"\x2c\0\0\0\0") for content in files]
    frames = [content[start:-1] for content, start in zip(files, starts, strict=True)]
    return files[0][: starts[0]] + b"".join(frames) + b";"


def jpeg_of(width, height):
    """A small JPEG whose header claims another size."""
    encoded = FILES["gray JPEG"]
    return patched(encoded, encoded.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


BAD = {
    "0 bytes": b"",
    "1 byte": b"\x89",
    "text": b"this is not an image",
    "random bytes": np.random.default_rng(0).bytes(5000),
    "only a JPEG's first bytes": b"\xff\xd8\xff",
    "truncated JPEG": FILES["colour JPEG"][:-200],
    "truncated PNG": FILES["colour PNG"][:-40],
    "PNG's header only": FILES["colour PNG"][:24],
    "truncated GIF": FILES["GIF"][:60],
    "truncated BMP": FILES["colour BMP"][:90],
    "BMP without its palette": FILES["BMP with a palette"][:60],
    "truncated WebP": FILES["WebP"][:50],
    "TIFF": file(picture(), "TIFF"),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "PNG without width": patched(FILES["colour PNG"], 16, struct.pack(">I", 0)),
}

WIDE_PNG = png_bomb(8192, 4097)

# Files of some kilobytes that take hundreds or thousands of megabytes when they are decoded.
BOMBS = {
    "PNG bomb": WIDE_PNG,
    "PNG bomb with another chunk first": WIDE_PNG[:8] + png_chunk(b"abCd", bytes(20)) + WIDE_PNG[8:],
    "JPEG that claims 65500 x 65500": jpeg_of(65500, 65500),
    "GIF whose frame claims 65535 x 65535": patched(
        FILES["GIF"], FILES["GIF"].index(b"\x2c\0\0\0\0") + 5, b"\xff" * 4
    ),
    "GIF of nine large frames": gif_of_frames(*[(2000, 2000)] * 9),
    "GIF of a wide and a high frame": gif_of_frames((65535, 1), (1, 65535)),
    "BMP that claims 2**31 rows": patched(FILES["colour BMP"], 18, b"\xff\xff\xff\x7f" * 2),
    "BMP of rows downwards that claims as many": patched(FILES["colour BMP"], 18, b"\xff\xff\0\0\1\0\0\x80"),
    "WebP that claims 16384 x 16384": patched(FILES["lossless WebP"], 21, b"\xff\xff\xff\x0f"),
    "animated WebP that claims 16384 x 16384": patched(FILES["animated WebP"], 24, b"\xff\x3f\0" * 2),
}
