"""DICOM files that pydicom writes here: against the formulas of DICOM PS3.3, C.11."""

import io
import warnings

import numpy as np
import pytest

from keras_vit.data.decode import Decoding
from keras_vit.data.probe import probe_image
from keras_vit.data.values import UnreadableImage
from tests.data.test_values import chosen

pytestmark = pytest.mark.same_on_every_backend

pydicom = pytest.importorskip("pydicom")
STORED = (np.arange(40 * 30).reshape(40, 30) * 7 % 4096).astype(np.uint16)
UNITS = STORED.astype(float) - 1024


def dicom(stored=STORED, syntax=None, **tags):
    """Bytes of a file; tags that are `None` are left out."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.PatientName, data.PatientID = "Secret^Person", "ID-4711"
    bits = 8 if stored.dtype == np.uint8 else 16
    plain = {
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": 8 if bits == 8 else 12,
        "HighBit": 7 if bits == 8 else 11,
        "PixelRepresentation": 0,
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
        "PixelData": stored.tobytes(),
    }
    for name, value in {**plain, **tags}.items():
        if value is not None:
            setattr(data, name, value)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def linear(center, width):
    """PS3.3, C.11.2.1.2.1, from 0 to 255."""
    return np.clip(((UNITS - (center - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)


WINDOW = {"WindowCenter": "300", "WindowWidth": "900"}
SIGMOID = 255 / (1 + np.exp(-4 * (UNITS - 300) / 900))
SHOWN = {
    "window": (dicom(**WINDOW), {}, linear(300, 900)),
    "first of two windows": (
        dicom(WindowCenter=["300", "5"], WindowWidth=["900", "5"]),
        {},
        linear(300, 900),
    ),
    "exact": (dicom(**WINDOW, VOILUTFunction="LINEAR_EXACT"), {}, np.clip((UNITS + 150) * 255 / 900, 0, 255)),
    "sigmoid": (dicom(**WINDOW, VOILUTFunction="SIGMOID"), {}, SIGMOID),
    "inverted": (dicom(**WINDOW, PhotometricInterpretation="MONOCHROME1"), {}, 255 - linear(300, 900)),
    "range of the run": (
        dicom(**WINDOW),
        {"pixel_range": (-100.0, 700.0)},
        np.clip((UNITS + 100) * 255 / 800, 0, 255),
    ),
    "inverted, range of the run": (
        dicom(**WINDOW, PhotometricInterpretation="MONOCHROME1"),
        {"pixel_range": (-100.0, 700.0)},
        255 - np.clip((UNITS + 100) * 255 / 800, 0, 255),
    ),
    "no window": (dicom(), {}, (UNITS + 1024) * 255 / 4095),
    "width of zero": (dicom(WindowCenter="3", WindowWidth="0"), {}, (UNITS + 1024) * 255 / 4095),
}


@pytest.mark.parametrize(("encoded", "decoding", "expected"), SHOWN.values(), ids=SHOWN)
def test_gray_is_shown_as_the_file_or_the_run_says(encoded, decoding, expected):
    info, pixels = probe_image(encoded, Decoding(**decoding))
    assert info.kind == "DICOM"
    np.testing.assert_allclose(pixels[..., 0], expected, atol=1e-2)


def test_colours_are_read():
    rgb = np.stack([(STORED // 16).astype(np.uint8)] * 3, axis=-1)
    rgb[..., 1] //= 2
    tags = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "RescaleSlope": None, "RescaleIntercept": None}
    encoded = dicom(rgb, **tags, PhotometricInterpretation="RGB")
    np.testing.assert_array_equal(probe_image(encoded)[1], rgb)


WRONG = {
    "frames": (dicom(NumberOfFrames="4", PixelData=STORED.tobytes() * 4), "a DICOM file with 4 frames"),
    "no image": (dicom(Rows=None, Columns=None), "a DICOM file without an image"),
    "cut short": (dicom()[:-200], "cut short or damaged"),
    "cut in its header": (dicom()[:160], "DICOM file"),
    "huge": (dicom(Rows=60_000, Columns=60_000), "60000 x 60000 pixels is more than"),
    "random bytes": (bytes(128) + b"DICM" + bytes(range(200)), "DICOM file"),
    "compression": (
        dicom(
            syntax=pydicom.uid.JPEGLSLossless, PixelData=pydicom.encaps.encapsulate([b"\xff\xd8 no image"])
        ),
        'compressed by "JPEG-LS Lossless|cannot be decoded',
    ),
}


@pytest.mark.parametrize(("encoded", "reason"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_read_has_a_reason_without_the_patient(encoded, reason):
    with pytest.raises(UnreadableImage, match=reason) as raised:
        probe_image(encoded)
    assert "Secret" not in str(raised.value)
    assert "4711" not in str(raised.value)


def test_the_window_of_the_files_counts_unless_one_is_given():
    assert chosen("auto", [dicom(**WINDOW)] * 2)[0] is None
    assert "by the window of each" in chosen("auto", [dicom(**WINDOW)] * 2)[1]
    assert chosen((-100.0, 700.0), [dicom(**WINDOW)] * 2)[0] == (-100.0, 700.0)
    low, high = chosen("auto", [dicom(**WINDOW), dicom()])[0]  # one has no window: all are measured
    assert low < -1000
    assert high > 3000
