"""The TFDS builder: a small folder with the layout of NEU-DET, prepared by TFDS and read back."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from keras_vit.data.sources import load_image_set
from keras_vit.data.sources.layout import NEU_CLASSES, NEU_PREFIXES
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend

tfds = pytest.importorskip("tensorflow_datasets", reason="the extra tfds is not installed")


def encoded(seed, kind):
    pixels = np.random.default_rng(seed).integers(0, 256, (200, 200), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGB" if kind == "JPEG" else "L").save(buffer, kind)
    return buffer.getvalue()


def class_folders(folder):
    for label, name in enumerate(NEU_CLASSES):
        (folder / name).mkdir(parents=True)
        for k in (1, 2, 10):
            (folder / name / f"{name}_{k}.jpg").write_bytes(encoded(100 * label + k, "JPEG"))


def flat_zip(folder):
    folder.mkdir()
    with zipfile.ZipFile(folder / "NEU.zip", "w") as archive:
        for prefix, name in NEU_PREFIXES.items():
            for k in (1, 2, 10):
                seed = 100 * NEU_CLASSES.index(name) + k
                archive.writestr(f"NEU surface defect database/{prefix}_{k}.bmp", encoded(seed, "BMP"))


def kaggle_folders(folder):
    """Train and validation folders, with images and annotations apart: one split in TFDS."""
    for label, name in enumerate(NEU_CLASSES):
        for part, numbers in (("train", (2, 10)), ("validation", (1,))):
            (folder / "NEU-DET" / part / "images" / name).mkdir(parents=True)
            (folder / "NEU-DET" / part / "annotations").mkdir(exist_ok=True)
            for k in numbers:
                (folder / "NEU-DET" / part / "annotations" / f"{name}_{k}.xml").write_text("<xml/>")
                path = folder / "NEU-DET" / part / "images" / name / f"{name}_{k}.jpg"
                path.write_bytes(encoded(100 * label + k, "JPEG"))


@pytest.mark.parametrize(
    ("make", "kind", "first"),
    [
        (class_folders, "JPEG", "crazing/crazing_1.jpg"),
        (flat_zip, "BMP", "NEU surface defect database/Cr_1.bmp"),
        (kaggle_folders, "JPEG", "NEU-DET/validation/images/crazing/crazing_1.jpg"),
    ],
)
def test_prepared_and_read_back(tmp_path, monkeypatch, make, kind, first):
    from keras_vit.data.sources.neu_det import prepare_neu_det

    make(tmp_path / "manual")
    folder = prepare_neu_det(tmp_path / "manual", tmp_path / "data")
    assert folder == tmp_path / "data" / "neu_det" / "1.0.0"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    images = load_image_set("tfds:neu_det")

    assert images.class_names == NEU_CLASSES
    assert images.labels.tolist() == [label for label in range(6) for _ in range(3)]
    assert images.names[0] == first
    assert images.parts is None
    # The same bytes, in the order of the numbers.
    assert images.images == [encoded(100 * label + k, kind) for label in range(6) for k in (1, 2, 10)]


def test_tfds_itself_decodes_one_channel(tmp_path):
    from keras_vit.data.sources.neu_det import prepare_neu_det

    class_folders(tmp_path / "manual")
    prepare_neu_det(tmp_path / "manual", tmp_path / "data")
    dataset = tfds.load("neu_det", split="train", data_dir=tmp_path / "data", as_supervised=True)
    image, label = next(iter(dataset.as_numpy_iterator()))
    assert image.shape == (200, 200, 1)
    assert label == 0
    gray = np.asarray(Image.open(io.BytesIO(encoded(1, "JPEG"))))[..., 0]
    assert np.abs(image[..., 0].astype(int) - gray).max() <= 3  # the fast inverse DCT of TensorFlow


def test_another_folder_is_refused_before_anything_is_written(tmp_path):
    from keras_vit.data.sources.neu_det import prepare_neu_det

    for name in ("cats", "dogs"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "1.png").write_bytes(encoded(1, "PNG"))
    with pytest.raises(InputError, match="has the classes cats, dogs, not the six of NEU: crazing"):
        prepare_neu_det(tmp_path / "pets", tmp_path / "data")
    with pytest.raises(InputError, match=r"No such folder: .*nowhere. Give the folder that holds the NEU"):
        prepare_neu_det(tmp_path / "nowhere", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_not_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"tfds:neu_det is not prepared in .*prepare_neu_det"):
        load_image_set("tfds:neu_det")
