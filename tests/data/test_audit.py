"""The audit of broken, copied and leaking images, and of the real data set."""

import dataclasses
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_vit.data.audit import PAIRED, audit_images, drop_unreadable, require_readable
from keras_vit.data.image_set import ImageSet
from keras_vit.data.near_duplicates import LIMIT, find_near_duplicates
from keras_vit.data.probe import why_unreadable
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import Split, split_image_set
from keras_vit.errors import InputError
from tests.helpers.paths import SHARED

pytestmark = pytest.mark.same_on_every_backend

NEU_DET = SHARED / "data" / "neu-det"


def texture(seed, height=96, width=96):
    """Gray marks on a plate: smooth noise, so that two thumbnails still differ."""
    noise = np.random.default_rng(seed).uniform(0, 255, (12, 12)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels, kind="PNG", mode=None, **options):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def image_set(images, labels=None, names=None, parts=None):
    names = names or tuple(f"image{i}" for i in range(len(images)))
    labels = np.asarray(labels if labels is not None else [0, 1] * len(images))[: len(images)]
    return ImageSet("the test", ("a", "b"), images, tuple(names), labels, parts)


def png_header(width, height):
    """The beginning of a PNG: enough for a program to allocate the pixels."""
    chunk = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")


def black_png(width, height, given_rows=None):
    """A black PNG with one bit per pixel. `given_rows` can be fewer than the header says."""
    rows = zlib.compressobj()
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(rows.compress(row) for _ in range(given_rows or height)) + rows.flush()
    chunks = b""
    for kind, content in ((b"IDAT", data), (b"IEND", b"")):
        body = kind + content
        chunks += len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return png_header(width, height) + chunks


NOT_AN_IMAGE = "not a readable JPEG, PNG, BMP, GIF, WebP, TIFF, DICOM or AVIF image, whatever its name says"
CUT_SHORT = "cannot be decoded: cut short or damaged"
BROKEN = [
    ("empty", b"", "empty, 0 bytes"),
    ("text", b"This is a text.\n" * 40, NOT_AN_IMAGE),
    ("half a tiff", encode(texture(0), "TIFF")[:3000], CUT_SHORT),
    (
        "half an avif",
        encode(texture(0), "AVIF")[:-300],
        "an AVIF file that is damaged, or of a kind that is not read: save it as PNG",
    ),
    ("half a jpeg", encode(texture(0), "JPEG")[:1500], CUT_SHORT),
    ("jpeg without its last bytes", encode(texture(0), "JPEG")[:-60], CUT_SHORT),
    ("half a png", encode(texture(0), "PNG")[:3000], CUT_SHORT),
    ("png without its last bytes", encode(texture(0), "PNG")[:-60], CUT_SHORT),
    ("half a bmp", encode(texture(0), "BMP")[:5000], CUT_SHORT),
    ("half a gif", encode(texture(0), "GIF")[:4000], CUT_SHORT),
    ("half a webp", encode(texture(0), "WEBP")[:600], "damaged or cut short: its header cannot be read"),
    ("png header only", png_header(100, 100), NOT_AN_IMAGE),
    ("png with too few rows", black_png(100, 100, given_rows=50), CUT_SHORT),
    (
        "20,000 x 20,000",
        black_png(20_000, 20_000),
        "20000 x 20000 pixels is more than the 100 million allowed; scale it down",
    ),
    (
        "more than PIL's own limit",
        black_png(60_000, 60_000, given_rows=1),
        "60000 x 60000 pixels is more than the 100 million allowed; scale it down",
    ),
]


@pytest.mark.parametrize(("name", "encoded", "reason"), BROKEN, ids=[case[0] for case in BROKEN])
def test_broken_images_are_named_with_the_reason(tmp_path, name, encoded, reason):
    path = tmp_path / "broken.jpg"
    path.write_bytes(encoded)
    assert why_unreadable(path) == reason
    assert why_unreadable(encoded) == reason


def test_the_broken_cases_are_readable_before_truncation():
    for kind in ("JPEG", "PNG", "BMP", "GIF", "WEBP"):
        assert why_unreadable(encode(texture(0), kind)) is None
    assert why_unreadable(black_png(2_000, 2_000)) is None


def test_missing_file_and_broken_link(tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "nowhere.png")
    assert why_unreadable(link) == "cannot be opened (No such file or directory)"


def test_the_limit_of_pil_is_unchanged_afterwards():
    before = Image.MAX_IMAGE_PIXELS
    audit_images(image_set([texture(0)[..., None], b"text"]))
    assert before == Image.MAX_IMAGE_PIXELS
    assert before is not None


def test_require_readable_names_ten_files_and_the_fix():
    broken = image_set([texture(0)[..., None], *[b""] * 12])
    with pytest.raises(InputError) as error:
        require_readable(audit_images(broken))
    lines = str(error.value).splitlines()
    assert lines[0] == (
        "12 of the 13 images in the test cannot be read. Remove or replace them, or leave them out with "
        "--skip-unreadable:"
    )
    assert lines[1:] == [f"    image{i}: empty, 0 bytes" for i in range(1, 11)] + ["    and 2 more"]
    require_readable(audit_images(drop_unreadable(broken, audit_images(broken))))


def test_drop_unreadable_keeps_the_others_in_order():
    images = image_set([b"", texture(1)[..., None], b"text", texture(2)[..., None]], labels=[0, 0, 1, 1])
    left = drop_unreadable(images, audit_images(images))
    assert (left.names, left.labels.tolist()) == (("image1", "image3"), [0, 1])


def test_counts_sizes_and_kinds():
    colors = np.stack([texture(seed) for seed in (3, 4, 5)], axis=-1)
    images = [
        encode(texture(0), "JPEG"),
        encode(texture(1, 50, 80), "BMP"),
        encode(colors, "PNG"),
        encode(colors, "PNG", mode="RGBA"),
        texture(2, 96, 96)[..., None],
        b"",
    ]
    audit = audit_images(
        image_set(images, labels=[0, 0, 0, 0, 1, 1]), Split(*map(np.array, ([0, 1, 5], [2, 4], [3])))
    )
    assert audit.classes == {
        "a": {"all": 4, "train": 2, "validation": 1, "test": 1},
        "b": {"all": 2, "train": 1, "validation": 1, "test": 0},
    }
    assert audit.imbalance == 2
    assert audit.height == {"min": 50, "median": 96, "max": 96}
    assert audit.width == {"min": 80, "median": 96, "max": 96}
    assert audit.sizes == {"96 x 96": 4, "50 x 80": 1}
    assert audit.kinds == {
        "JPEG, 1 channel": 1,
        "BMP, 1 channel": 1,
        "PNG, 3 channels": 2,
        "array, 1 channel": 1,
    }
    assert [(item.name, item.reason) for item in audit.unreadable] == [("image5", "empty, 0 bytes")]


def test_exact_duplicates_are_found_through_formats_and_equal_channels():
    gray = texture(0)
    images = [gray[..., None], encode(gray, "PNG"), encode(gray, "BMP", mode="RGB"), encode(texture(1))]
    audit = audit_images(image_set(images, labels=[0, 0, 1, 1], parts=("train", "test", "train", "test")))
    assert audit.exact_duplicates == (("image0", "image1", "image2"),)
    assert audit.label_conflicts == audit.exact_duplicates
    assert audit.near_duplicates == ()
    assert [(c.first, c.first_part, c.second, c.second_part, c.exact) for c in audit.leaks] == [
        ("image0", "train", "image1", "test", True),
        ("image1", "test", "image2", "train", True),
    ]


NEAR = {
    "saved again as JPEG of quality 30": lambda x: np.asarray(
        Image.open(io.BytesIO(encode(x, "JPEG", quality=30)))
    ),
    "half the size": lambda x: np.asarray(Image.fromarray(x).resize((48, 48), Image.Resampling.BICUBIC)),
    "darker, less contrast": lambda x: (x * 0.6 + 20).astype(np.uint8),
    "with noise": lambda x: np.clip(x + np.random.default_rng(0).normal(0, 5, x.shape), 0, 255).astype(
        np.uint8
    ),
    "two pixels further": lambda x: x[2:, 2:],
    "lit from one side": lambda x: np.clip(x * np.linspace(0.7, 1, 96), 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", NEAR.values(), ids=NEAR.keys())
def test_near_duplicates(change):
    images = [texture(seed)[..., None] for seed in range(8)] + [change(texture(3))[..., None]]
    audit = audit_images(image_set(images, labels=[0] * 9, parts=("train",) * 8 + ("test",)))
    assert [(c.first, c.second, c.exact) for c in audit.near_duplicates] == [("image3", "image8", False)]
    assert 0.8 <= audit.near_duplicates[0].likeness <= 1
    assert audit.leaks == audit.near_duplicates
    assert audit.exact_duplicates == ()


def test_the_same_light_on_different_steel_is_not_a_duplicate():
    light = np.linspace(40, 200, 96)[:, None] * np.linspace(0.3, 1, 96)
    plates = [np.clip(light + texture(seed) / 16, 0, 255).astype(np.uint8) for seed in range(8)]
    plain = np.corrcoef(plates[0].ravel(), plates[1].ravel())[0, 1]
    assert plain > 0.98  # pixel by pixel the images are similar, which makes this test hard
    assert audit_images(image_set([plate[..., None] for plate in plates])).near_duplicates == ()


def test_flat_images_are_exact_duplicates_only():
    flat = [np.full((40, 40, 1), value, np.uint8) for value in (10, 10, 200)]
    audit = audit_images(image_set(flat))
    assert audit.exact_duplicates == (("image0", "image1"),)
    assert audit.near_duplicates == ()


def test_near_duplicates_do_not_depend_on_the_block_size(monkeypatch):
    thumbnails = np.random.default_rng(0).uniform(0, 255, (30, 32, 32)).astype(np.float32)
    thumbnails[20:] = thumbnails[:10] + np.random.default_rng(1).normal(0, 20, (10, 32, 32))
    digests = [bytes([i]) * 16 for i in range(1, 31)]
    whole = find_near_duplicates(thumbnails, digests)
    assert sorted(zip(whole[0].tolist(), whole[1].tolist(), strict=True)) == [(i, i + 20) for i in range(10)]
    monkeypatch.setattr("keras_vit.data.near_duplicates.BLOCK", 7)
    blocks = find_near_duplicates(thumbnails, digests)
    for one, other in zip(whole, blocks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_too_many_pairs_are_counted_but_not_listed(monkeypatch):
    monkeypatch.setattr("keras_vit.data.near_duplicates.LISTED_PAIRS", 3)
    images = [encode(texture(0), "JPEG", quality=quality) for quality in range(50, 90, 10)]
    audit = audit_images(image_set(images))
    assert (len(audit.near_duplicates), audit.near_duplicates_found) == (3, 6)


def test_above_the_limit_near_duplicates_are_skipped_with_a_note(monkeypatch):
    monkeypatch.setattr("keras_vit.data.duplicates.LIMIT", 3)
    audit = audit_images(image_set([texture(seed)[..., None] for seed in (0, 1, 2, 3)]))
    assert audit.near_duplicates_skipped == "not searched for: more than 3 images take too long"
    assert "near duplicates: not searched for" in str(audit)
    assert LIMIT == 10_000


def test_table_and_json():
    images = image_set(
        [texture(0)[..., None], encode(texture(0)), encode(texture(1)), encode(texture(1), "JPEG"), b""],
        labels=[0, 0, 1, 1, 1],
        parts=("train", "test", "train", "test", "train"),
    )
    audit = audit_images(images)
    assert str(audit).splitlines() == [
        "the test: 5 images, 2 classes",
        "  class         all       train        test",
        "  a               2           1           1",
        "  b               3           2           1",
        "  largest class / smallest class: 1.5",
        "  sizes (height x width): 96 x 96 (4)",
        "  files: PNG, 1 channel (2), array, 1 channel (1), JPEG, 1 channel (1)",
        "  unreadable: 1",
        "    image4: empty, 0 bytes",
        "  exact duplicates: 1 group",
        "    image0 = image1",
        "  near duplicates: 1 pair",
        "    image2 ~ image3 (1.00)",
        "  duplicates across the split: 2",
        "    image0 (train) = image1 (test)",
        "    image2 (train) ~ image3 (test)",
    ]
    plain = json.loads(json.dumps(audit.to_dict(), allow_nan=False))
    assert plain["exact_duplicates"] == [["image0", "image1"]]
    assert plain["leaks"][0]["second_part"] == "test"
    assert plain["unreadable"] == [{"name": "image4", "reason": "empty, 0 bytes"}]


def test_what_the_source_said_is_kept_for_json():
    images = dataclasses.replace(
        image_set([texture(0)[..., None]] * 2), notes=("3 files are skipped: .txt (3).",)
    )
    audit = audit_images(images)
    assert audit.to_dict()["notes"] == ["3 files are skipped: .txt (3)."]
    assert "skipped" not in str(audit)  # load_image_set has said it


def test_files_with_several_pages_or_frames_are_named():
    more = {"save_all": True, "append_images": [Image.fromarray(texture(9))]}
    images = [encode(texture(i), kind, **more) for i, kind in enumerate(("TIFF", "GIF", "PNG", "WEBP"))]
    images += [encode(texture(5 + i), kind) for i, kind in enumerate(("TIFF", "GIF", "PNG", "WEBP"))]
    audit = audit_images(image_set(images))
    assert audit.first_of_several == ("image1", "image2", "image3")
    (several,) = audit.unreadable
    assert several.name == "image0"
    assert several.reason.startswith("a TIFF with 2 pages: --tiff-page 1 reads the first one of each file")
    assert "  more than one page or frame, of which the first is read: 3\n    image1\n" in str(audit)


def test_nothing_readable_and_an_empty_class():
    audit = audit_images(image_set([b"", b""], labels=[0, 0]))
    assert "unreadable: 2" in str(audit)
    assert (audit.height, audit.near_duplicates_found) == ({}, 0)
    assert json.loads(json.dumps(audit.to_dict(), allow_nan=False))["imbalance"] is None


def test_neu_det():
    if not NEU_DET.is_dir():
        pytest.skip(f"the NEU images are not in {NEU_DET}")
    images = load_image_set(NEU_DET)
    audit = audit_images(images, split_image_set(images, seed=0))
    assert audit.exact_duplicates == (("patches/patches_101.jpg", "patches/patches_105.jpg"),)
    assert audit.unreadable == ()
    assert audit.sizes == {"200 x 200": 1800}
    assert audit.kinds == {"JPEG, 3 channels": 1800}
    # A person has checked each pair: the same spot of steel, photographed again or a few pixels further.
    found = {(c.first.split("/")[1], c.second.split("/")[1]) for c in audit.near_duplicates}
    assert {
        ("patches_199.jpg", "patches_201.jpg"),
        ("scratches_146.jpg", "scratches_147.jpg"),
        ("inclusion_188.jpg", "inclusion_210.jpg"),
        ("pitted_surface_171.jpg", "pitted_surface_292.jpg"),
        ("crazing_105.jpg", "crazing_109.jpg"),
    } <= found
    assert audit.near_duplicates_found == len(found) == 21
    # A person has checked these too: different plates under the same light.
    assert not found & {
        ("pitted_surface_107.jpg", "pitted_surface_194.jpg"),
        ("inclusion_227.jpg", "inclusion_252.jpg"),
    }
    assert all(copy.first_part != copy.second_part for copy in audit.leaks)


def test_of_many_equal_images_in_two_parts_each_is_in_a_pair():
    count = PAIRED + 4
    images = [np.full((8, 8, 1), 7, np.uint8)] * count
    parts = ("train",) * (count - 3) + ("validation", "test", "test")
    image_set = ImageSet("x", ("a", "b"), images, tuple(map(str, range(count))), np.arange(count) % 2, parts)
    found = audit_images(image_set)
    assert [len(group) for group in found.exact_duplicates] == [count]
    assert {name for pair in found.leaks for name in (pair.first, pair.second)} == set(image_set.names)
    assert all(pair.first_part != pair.second_part and pair.exact for pair in found.leaks)
    assert len(found.leaks) == count - 1  # not one per pair of images
