"""TIFF and DICOM files, channels of measurement, and the range of values: against numpy and Pillow."""

import io

import numpy as np
import pytest

from keras_vit.data.audit import audit_split
from keras_vit.data.decode import Decoding
from keras_vit.data.image_set import ImageSet
from keras_vit.data.overview import Overview
from keras_vit.data.pipeline import read_pixels
from keras_vit.data.pixel_range import choose_range
from keras_vit.data.preprocess import Preprocessing, recorded
from keras_vit.data.probe import probe_image, shown_pixels
from keras_vit.data.sources.pixels import as_pixels
from keras_vit.data.split import Split
from keras_vit.data.values import UnreadableImage
from keras_vit.errors import InputError
from keras_vit.serving.sent import Sent, to_send

pytestmark = pytest.mark.same_on_every_backend

tifffile = pytest.importorskip("tifffile")
GRAY = (np.arange(40 * 30).reshape(40, 30) * 7 % 256).astype(np.uint8)
WIDE = GRAY.astype(np.uint16) * 16 + 3
FIVE = np.stack([np.roll(WIDE, i, 0) for i in range(5)], axis=-1)
COLOR = np.stack([WIDE, WIDE[::-1], WIDE[:, ::-1]], axis=-1)
CONTIG = {"photometric": "minisblack", "planarconfig": "contig"}


def tiff(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def pages(*arrays):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for array in arrays:
            writer.write(array, metadata=None, photometric="minisblack")
    return file.getvalue()


def scaled(values, low, high):
    """The oracle: in float64, clipped to 0..255."""
    pixels = np.clip((values.astype(np.float64) - low) * 255 / (high - low), 0, 255)
    return pixels if values.ndim == 3 else pixels[..., None]


READ = {
    "gray": (tiff(WIDE), WIDE),
    "big endian": (tiff(WIDE, byteorder=">"), WIDE),
    "BigTIFF": (tiff(WIDE, bigtiff=True), WIDE),
    "tiles": (tiff(WIDE, tile=(16, 16)), WIDE),
    "deflate": (tiff(WIDE, compression="zlib", predictor=True), WIDE),
    "RGB": (tiff(COLOR, photometric="rgb"), COLOR),
    "planes": (tiff(np.moveaxis(COLOR, -1, 0), photometric="rgb", planarconfig="separate"), COLOR),
    "five": (tiff(FIVE, **CONTIG), FIVE),
    "five, big endian": (tiff(FIVE, byteorder=">", **CONTIG), FIVE),
    "turned": (tiff(FIVE, extratags=[(274, 3, 1, 6, True)], **CONTIG), np.rot90(FIVE, -1)),
    "float32": (tiff(WIDE.astype(np.float32)), WIDE),
    "float64": (tiff(WIDE.astype(np.float64)), WIDE),
    "int16": (tiff(WIDE.astype(np.int16) - 900), WIDE.astype(np.int16) - 900),
    "white is zero": (tiff(WIDE, photometric="miniswhite"), None),
}


@pytest.mark.parametrize(("encoded", "values"), READ.values(), ids=READ)
def test_values_become_pixels_by_the_range(encoded, values):
    _, pixels = probe_image(encoded, Decoding(pixel_range=(100.0, 3000.0)))
    expected = 255 - scaled(WIDE, 100, 3000) if values is None else scaled(values, 100, 3000)
    np.testing.assert_allclose(pixels, expected, atol=2e-4)


def test_an_earlier_run_inverts_16_bits_before_its_range():
    record = {"image_shape": [4, 4, 1], "aspect": "stretch", "pixel_range": [100.0, 3000.0]}
    _, pixels = probe_image(READ["white is zero"][0], recorded(record).decoding)
    np.testing.assert_allclose(pixels, scaled(65535 - WIDE, 100, 3000), atol=2e-4)
    assert recorded(record).tiff_page == 1  # it read the first of several pages


def test_each_channel_may_have_its_own_range():
    ends = tuple(float(end) for i in range(5) for end in (i, 2000 + 100 * i))
    preprocessing = Preprocessing((40, 30, 5), pixel_range=ends)
    (pixels,) = read_pixels([tiff(FIVE, **CONTIG)], preprocessing)
    for i in range(5):
        np.testing.assert_allclose(pixels[..., i], scaled(FIVE, i, 2000 + 100 * i)[..., i], atol=2e-4)


def test_pages_are_channels_or_one_of_them_is_read():
    several = pages(*np.moveaxis(FIVE, -1, 0))
    _, pixels = probe_image(several, Decoding(pixel_range=(0.0, 4095.0), channels=5, tiff_page="channels"))
    np.testing.assert_allclose(pixels, scaled(FIVE, 0, 4095), atol=2e-4)
    _, pixels = probe_image(several, Decoding(pixel_range=(0.0, 4095.0), tiff_page=3))
    np.testing.assert_allclose(pixels, scaled(FIVE[..., 2], 0, 4095), atol=2e-4)
    small = io.BytesIO()
    with tifffile.TiffWriter(small) as writer:
        writer.write(WIDE, metadata=None)
        writer.write(WIDE[::2, ::2], metadata=None, subfiletype=1)  # a smaller version is no page
    assert probe_image(small.getvalue())[0].height == 40


NAN = WIDE.astype(np.float32)
NAN[3, 3] = np.nan
HUGE = bytearray(tiff(FIVE[:8, :8], **CONTIG))
for tag in (256, 257):
    with tifffile.TiffFile(io.BytesIO(bytes(HUGE))) as opened:
        place = opened.pages[0].tags[tag].valueoffset
    HUGE[place : place + 4] = (60_000).to_bytes(4, "little")
RGBA = np.stack([GRAY] * 4, axis=-1)
WRONG = {
    "several pages": (pages(WIDE, WIDE), {}, "a TIFF with 2 pages: --tiff-page 1 reads the first one"),
    "no such page": (pages(WIDE, WIDE), {"tiff_page": 3}, "a TIFF with 2 pages, so there is no page 3"),
    "pages of two sizes": (
        pages(WIDE, WIDE[:20]),
        {"tiff_page": "channels"},
        "whose pages differ in size, 30",
    ),
    "pages of two types": (pages(WIDE, GRAY), {"tiff_page": "channels"}, "values of different types"),
    "33 pages": (pages(*[WIDE] * 33), {"tiff_page": "channels"}, "with 33 pages, and at most 32 channels"),
    "too few channels": (tiff(FIVE, **CONTIG), {"channels": 6}, "it has 5 channels, and the run takes 6"),
    "no colours": (tiff(FIVE, **CONTIG), {"channels": 3}, "takes 3: --channels 5 takes them"),
    "NaN": (tiff(NAN), {"pixel_range": (0.0, 9.0)}, "1 of its 1,200 values are NaN or infinite"),
    "no range": (tiff(WIDE.astype(np.float32)), {}, "its values are float32, and nothing says"),
    "8 bits": (tiff(GRAY), {"pixel_range": (0.0, 9.0)}, "8 bits per channel, but the range"),
    "complex": (tiff(WIDE.astype(np.complex64)), {}, "values of a kind that is not read"),
    "cut in its header": (tiff(FIVE, **CONTIG)[:40], {}, "its header cannot be read"),
    "cut in its pixels": (tiff(FIVE, **CONTIG)[:-50], {}, "cut short or damaged"),
    "huge": (bytes(HUGE), {}, "60000 x 60000 pixels is more than the 100 million allowed"),
    "text": (b"II, says this text, is no TIFF", {}, "not a readable JPEG"),
}


@pytest.mark.parametrize(("encoded", "decoding", "reason"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_read_has_a_reason(encoded, decoding, reason):
    with pytest.raises(UnreadableImage, match=reason.replace("(", r"\\(")):
        probe_image(encoded, Decoding(**decoding))


def test_alpha_is_a_channel_where_four_are_asked_for_and_the_file_is_a_tiff():
    encoded = tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(probe_image(encoded, Decoding(channels=4))[1], RGBA)
    assert probe_image(encoded, Decoding(channels=3))[1].shape[-1] == 3
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(RGBA).save(png, "PNG")
    with pytest.raises(UnreadableImage, match=r"takes 4 of measurement \(alpha is none of them\)"):
        probe_image(png.getvalue(), Decoding(channels=4))


def image_set(images):
    names = tuple(f"image{i}" for i in range(len(images)))
    labels = np.arange(len(images)) % 2
    return ImageSet("here", ("a", "b"), images, names, labels)


def split_of(images):
    return Split(np.arange(len(images)), np.zeros(0, int), np.zeros(0, int))


def chosen(wanted, images, **decoding):
    return choose_range(wanted, image_set(images), split_of(images), Decoding(**decoding))


def test_the_range_is_measured_per_channel_or_given():
    images = [tiff(FIVE, **CONTIG)] * 2
    ends, told = chosen("auto", images, channels=5)
    assert len(ends) == 10
    assert ends[:2] == (3.0, 4083.0)
    assert "in channel 1" in told
    assert chosen(("0%", "100%"), [tiff(WIDE)] * 2)[0] == (3.0, 4083.0)
    assert chosen((5.0, 9.0), [tiff(WIDE)])[0] == (5.0, 9.0)
    assert "warning: 100.0% of the values" in chosen((60_000.0, 61_000.0), [tiff(WIDE)])[1]
    assert chosen("dtype", [tiff(WIDE)])[0] is None
    low, high = chosen("auto", [tiff(GRAY.astype(np.float32) / 255 - 0.5)])[0]
    assert (low, high) == pytest.approx((-0.5, 0.5), abs=0.01)


REFUSED = {
    "8 and 16 bits": ("auto", [tiff(GRAY), tiff(WIDE)], "1 with 16 bits per channel, the first image1"),
    "16 bits and floats": ("auto", [tiff(WIDE), tiff(NAN)], "Convert them to one type, or give --window LOW"),
    "8 bits": (
        (1.0, 9.0),
        [tiff(GRAY)],
        "have 8 bits per channel, so --window 1 9 has nothing to choose",
    ),
    "low above high": ((9.0, 1.0), [tiff(WIDE)], "must have the lower value first"),
    "percentiles": (("99%", "1%"), [tiff(WIDE)], "The lower percentile comes first"),
}


@pytest.mark.parametrize(("wanted", "images", "message"), REFUSED.values(), ids=REFUSED)
def test_a_range_that_says_nothing_is_refused(wanted, images, message):
    with pytest.raises(InputError, match=message):
        chosen(wanted, images)


def test_the_channels_are_known_from_the_headers():
    overview = Overview([tiff(FIVE, **CONTIG), tiff(GRAY), tiff(COLOR, photometric="rgb")])
    assert overview.channels == {5: 0, 3: 1}
    assert Overview([pages(WIDE, WIDE)] * 2, tiff_page="channels").channels == {2: 0}


def test_people_see_the_channels_that_are_named():
    image = tiff(FIVE, **CONTIG)
    decoding = Decoding(pixel_range=(0.0, 4095.0), channels=5, shown_channels=(5, 1, 2))
    whole = np.rint(scaled(FIVE, 0, 4095)).astype(np.uint8)
    np.testing.assert_array_equal(shown_pixels(image, decoding), whole[..., [4, 0, 1]])


def test_arrays_keep_their_values():
    stack = np.stack([FIVE, FIVE + 9])
    found, notes = as_pixels("here.npz", {"x": stack})
    ends = (0.0, 5000.0)
    np.testing.assert_allclose(
        probe_image(found["x"][1], Decoding(pixel_range=ends, channels=5))[1],
        scaled(stack[1], *ends),
        atol=2e-4,
    )
    assert notes == ["x: values of uint16 are scaled by the range of the run"]
    first, _ = as_pixels("here.npz", {"x": np.zeros((2, 6, 28, 28), np.uint8)})
    assert first["x"].shape == (2, 28, 28, 6)


def test_the_audit_reads_what_a_run_reads():
    rng = np.random.default_rng(0)
    images = [tiff(rng.integers(0, 4096, (40, 30, 5)).astype(np.uint16), **CONTIG) for _ in range(12)]
    audit = audit_split(image_set(images), 0, "keep").audit
    assert audit.kinds == {"TIFF, 5 channels, 16 bits": 12}
    assert not audit.unreadable


def test_a_client_sends_pixels_or_values():
    sent = to_send(tiff(WIDE, photometric="miniswhite"), None, has_range=True)
    assert isinstance(sent, Sent)
    assert sent.signature == "values"
    assert sent.inputs["inverted"].tolist() == [True]
    np.testing.assert_array_equal(sent.inputs["values"][0, ..., 0], WIDE)
    sent = to_send(tiff(WIDE), None, has_range=False)
    np.testing.assert_allclose(sent.inputs["images"][0], scaled(WIDE, 0, 65535), atol=2e-4)
    assert to_send(tiff(GRAY), None, has_range=False).startswith(b"\x89PNG")
    assert to_send(b"\xff\xd8 anything", None, has_range=True) == b"\xff\xd8 anything"
    with pytest.raises(UnreadableImage, match="it has 5 channels, and the model takes 4"):
        to_send(tiff(FIVE, **CONTIG), 4, has_range=True)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    with pytest.raises(InputError, match=r"ZLIB|ADOBE_DEFLATE"):
        probe_image(tiff(FIVE, **CONTIG, compression="zlib"))
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(
        InputError, match=r'DICOM files need pydicom: pip install "keras-vit-defects\[dicom\]"'
    ):
        probe_image(bytes(128) + b"DICM" + bytes(50))
