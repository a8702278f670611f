"""Damaged image files: small valid files of every kind, changed at random."""

import struct
import zlib

import numpy as np

from tests.serving.served_images import FILES, animation, file, gif_of_frames, picture, png_chunk

LARGE = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def png(depth, colour, *, interlaced=False, size=(13, 11)):
    """A PNG of random pixels; `colour` is 0 gray, 2 RGB, 4 gray with alpha, 6 RGB with alpha.

    The pixels are stored uncompressed, so a changed byte changes one pixel.
    """
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    passes = [(0, 0, 1, 1)]
    if interlaced:  # Adam7: first column, first row, and the steps
        passes = [
            (0, 0, 8, 8),
            (4, 0, 8, 8),
            (0, 4, 4, 8),
            (2, 0, 4, 4),
            (0, 2, 2, 4),
            (1, 0, 2, 2),
            (0, 1, 1, 2),
        ]
    rng, rows = np.random.default_rng(0), b""
    for left, top, right, down in passes:
        width, height = len(range(left, size[0], right)), len(range(top, size[1], down))
        rows += b"".join(
            b"\0" + rng.bytes((width * channels * depth + 7) // 8) for _ in range(height) if width
        )
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows, 0)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


SEEDS = [
    *FILES.values(),
    file(picture("CMYK"), "JPEG", progressive=True),
    file(picture(), "JPEG", subsampling="4:1:1", restart_marker_blocks=1),
    *(png(16, colour) for colour in (0, 2, 4, 6)),
    png(16, 6, interlaced=True),
    png(8, 2, interlaced=True),
    png(1, 0, interlaced=True),
    file(picture("P"), "PNG", transparency=0),
    file(picture("RGBA"), "BMP"),
    file(picture("P"), "GIF", interlace=1, transparency=0),
    gif_of_frames((5, 9), (20, 3)),
    animation("WEBP", lossless=True),
    animation("WEBP", allow_mixed=True, minimize_size=True),
    file(picture("RGBA"), "WEBP", exif=b"Exif\0\0" + bytes(9)),
]
"""Valid files, which `mutated` begins at."""


def mutated(rng):
    """A damaged file, almost always a different one."""
    content = bytearray(SEEDS[rng.integers(len(SEEDS))])
    for _ in range(rng.geometric(0.7)):
        MUTATIONS[rng.integers(len(MUTATIONS))](rng, content)
    if content[:4] == b"\x89PNG" and rng.random() < 0.7:
        content = with_right_checksums(content)
    return bytes(content)


def random_position(rng, content):
    """A random position in the file, sometimes near the beginning."""
    return int(rng.integers(min(len(content), 64) if rng.random() < 0.25 else len(content))) if content else 0


def part(rng, content):
    start = random_position(rng, content)
    return slice(start, start + int(rng.geometric(0.15)))


def flip_bits(rng, content):
    for _ in range(rng.integers(1, 5) if content else 0):
        content[random_position(rng, content)] ^= 1 << int(rng.integers(8))


def overwrite(rng, content):
    found = part(rng, content)
    size = len(content[found])
    content[found] = (b"\0" * size, b"\xff" * size, rng.bytes(size))[rng.integers(3)]


def truncate(rng, content):
    del content[random_position(rng, content) :]


def insert(rng, content):
    at = random_position(rng, content)
    content[at:at] = rng.bytes(int(rng.geometric(0.15)))


def delete(rng, content):
    del content[part(rng, content)]


def duplicate(rng, content):
    found = part(rng, content)
    content[found.start : found.start] = content[found] * int(rng.integers(1, 4))


def change_number(rng, content):
    """Replaces a number of 1, 2 or 4 bytes by a large or a small one."""
    size = (1, 2, 4)[rng.integers(3)]
    value = LARGE[rng.integers(len(LARGE))] % 256**size
    at = random_position(rng, content)
    content[at : at + size] = value.to_bytes(size, ("little", "big")[rng.integers(2)])


def splice(rng, content):
    """Replaces the rest of the file by that of another one."""
    other = SEEDS[rng.integers(len(SEEDS))]
    del content[random_position(rng, content) :]
    content += other[int(rng.integers(len(other))) :]


MUTATIONS = (flip_bits, overwrite, truncate, insert, delete, duplicate, change_number, splice)


def with_right_checksums(content):
    """A damaged PNG with valid checksums, since a decoder stops at a wrong checksum."""
    content = bytearray(content)
    at = 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            break
        content[end : end + 4] = zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return content
