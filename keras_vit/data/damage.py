"""What a decoder complains about in a file that it decodes all the same.

TensorFlow prints such warnings of libjpeg without the name of the file, and goes on. Not all damage is found
this way: a JPEG whose rows are shifted or recoloured by a few lost bytes may be valid in itself.
"""

import io


def decoder_warning(encoded: bytes, kind: str) -> str | None:
    """What is wrong with a file that TensorFlow decodes, as half a sentence; `None` if nothing is known.

    Args:
        encoded: the bytes of the file.
        kind: as Pillow calls it.
    """
    if kind == "JPEG":
        return _jpeg_warning(encoded)
    return _gif_warning(encoded) if kind == "GIF" else None


def _jpeg_warning(encoded):
    import simplejpeg

    def decode(strict):
        # Scaled to an eighth: all bytes are read, which finds the damage, and few pixels are made.
        simplejpeg.decode_jpeg(encoded, colors, min_height=1, min_width=1, strict=strict)

    try:
        space = simplejpeg.decode_jpeg_header(encoded, strict=False)[2]
        colors = {"Gray": "GRAY", "YCbCr": "GRAY", "RGB": "RGB"}.get(space, "CMYK")
        decode(strict=False)
    except ValueError:
        return None  # of a kind that simplejpeg does not know
    try:
        decode(strict=True)
    except ValueError as warning:
        return f"decoded, but damaged ({str(warning).strip()})"
    return None


def _gif_warning(encoded):
    from PIL import Image as pil

    try:
        with pil.open(io.BytesIO(encoded), formats=("GIF",)) as image:
            image.load()
    except Exception as error:  # on damaged files PIL raises a dozen kinds of exception
        return f"decoded, but damaged ({str(error).strip()})"
    return None
