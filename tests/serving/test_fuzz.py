"""Damaged images and decompression bombs for an exported run, in processes that may crash."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.helpers import tiny
from tests.helpers.paths import ROOT
from tests.serving import brightness_model
from tests.serving.decode_one import decode_or_blank
from tests.serving.fuzz_bundle import BATCH_SIZE, batch, problem
from tests.serving.mutations import MUTATIONS, SEEDS, mutated, png, with_right_checksums
from tests.serving.served_images import BOMBS, file

pytestmark = pytest.mark.same_on_every_backend

SEED = 0
BATCHES = 67  # 30 damaged images each

# glibc then checks every freed block, and fills new and freed memory with bytes other than 0.
STRICT = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165"}


def fuzz(folder, labels, batches):
    """The summary. Fails with the command that repeats the failed batch."""
    arguments = ["-m", "tests.serving.fuzz_bundle", folder, "--labels", ",".join(labels), "--seed", SEED]
    process = subprocess.run(
        [sys.executable, *map(str, arguments), "--batches", str(batches)],
        env={**os.environ, **STRICT},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = process.stdout.splitlines() or ["nothing"]
    if process.returncode:
        number, last = lines[-1].removeprefix("batch "), process.stderr.splitlines()[-1:]
        pytest.fail(
            f"batch {number} ended with {process.returncode}: {last}. To repeat it: "
            f"python {' '.join(map(str, arguments))} --first {number}"
        )
    return json.loads(lines[-1])


@pytest.mark.long
def test_two_thousand_damaged_images(bundle):
    found = fuzz(bundle.path, tiny.CLASSES, BATCHES)
    assert found["mutated"] >= 2000
    assert 0.1 < found["blank"] / found["mutated"] < 0.9  # some images of each kind are in the batch


@pytest.mark.long
def test_a_model_that_fails_on_a_damaged_image_is_found(tmp_path):
    brightness_model.write(tmp_path / "1")
    with pytest.raises(pytest.fail.Exception, match=r"batch \w+ ended with 1: .*To repeat it: python "):
        fuzz(tmp_path / "1", brightness_model.CLASSES, 1)


# The fuzzer itself


def test_seed_and_number_determine_a_batch():
    assert batch(0, 3) == batch(0, 3)
    assert batch(0, 3) != batch(0, 4)
    assert batch(0, 3) != batch(1, 3)


@pytest.mark.parametrize("index", range(len(SEEDS)))
def test_the_original_images_can_be_decoded(index):
    assert decode_or_blank(tf.constant(SEEDS[index]))[1]


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("content", [b"", b"\x89", SEEDS[0]], ids=["0 bytes", "1 byte", "image"])
def test_a_mutation_takes_files_of_any_length(mutation, content):
    changed = []
    for seed in range(20):
        new = bytearray(content)
        mutation(np.random.default_rng(seed), new)
        changed.append(bytes(new))
    assert len(set(changed)) > (10 if len(content) > 1 else 0)


def test_a_damaged_png_has_valid_checksums():
    damaged = bytearray(png(8, 2))
    damaged[60] ^= 1
    with pytest.raises(SyntaxError, match="broken PNG file"):
        Image.open(io.BytesIO(damaged)).verify()
    Image.open(io.BytesIO(with_right_checksums(damaged))).verify()


def test_checksums_of_data_that_is_not_a_png():
    for seed in range(200):
        with_right_checksums(b"\x89PNG" + mutated(np.random.default_rng(seed)))


def answer(**changes):
    """Answers to a batch whose first image does not decode, with changes to its row."""
    right = {
        "probabilities": np.tile(np.float32([0.25, 0.75]), (BATCH_SIZE, 1)),
        "label": np.array([b"b"] * BATCH_SIZE, object),
        "confidence": np.full(BATCH_SIZE, 0.75, "float32"),
        "reject": np.zeros(BATCH_SIZE, int),
    }
    for name, first in dict(probabilities=[0, 0], label=b"", confidence=0, reject=1).items():
        right[name][0] = changes.get(name, first)
    return right


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, None),
        (dict(reject=0), "row 0 has reject 0"),
        (dict(reject=2), "row 0 has reject 2"),
        (dict(label=b"b"), "row 0 says b'b'"),
        (dict(confidence=0.5), "row 0 says b'', 0.5"),
        (dict(probabilities=[NAN, 1]), "row 0 is not finite"),
        (dict(probabilities=[INFINITY, 0]), "row 0 is not finite"),
        (dict(probabilities=[0.5, 0.6], confidence=0.6, label=b"b"), "row 0 is not a distribution"),
        (dict(probabilities=[-0.5, 1.5], confidence=1.5, label=b"b"), "row 0 is not a distribution"),
        (dict(probabilities=[0.25, 0.75], confidence=0.75, label=b"a"), "row 0 says b'a'"),
        (dict(probabilities=[0.25, 0.75], confidence=0.75, label=b"b", reject=0), None),
    ],
)
def test_wrong_answers_are_found(changes, found):
    description = problem(answer(**changes), [b"a", b"b"], {}, {})
    assert description is None if found is None else description.startswith(found)


@pytest.mark.parametrize(
    ("probabilities", "reject", "found"),
    [
        ([0.25, 0.75], 0, None),
        ([0.26, 0.74], 0, "row 5, a good image, has got another answer than alone"),
        ([0.25, 0.75], 1, "row 5, a good image, has got another reject than alone"),
    ],
)
def test_a_disturbed_good_image_is_found(probabilities, reject, found):
    alone = {"probabilities": np.array([[0, 0], probabilities]), "reject": np.array([1, reject])}
    assert problem(answer(), [b"a", b"b"], {5: 1}, alone) == found


# Memory


@pytest.fixture
def peak_memory(bundle, tmp_path):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux, which records the peak memory of a process")

    def measure(*files):
        paths = [tmp_path / str(i) for i in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            path.write_bytes(content)
        command = [sys.executable, "-m", "tests.serving.peak_memory", bundle.path, *paths]
        process = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)

    return measure


@pytest.mark.long
def test_bombs_are_refused_without_taking_memory(peak_memory, drawn_images):
    good = (drawn_images / "dots" / "0.png").read_bytes()
    found = peak_memory(good, *BOMBS.values(), good)
    assert found["blank"] == [False, *[True] * len(BOMBS), False]
    assert all(found["reject"][1:-1])
    assert found["reject"][0] == found["reject"][-1]
    assert found["grown"] < 100


@pytest.mark.long
def test_the_largest_image_that_is_accepted_takes_known_memory(peak_memory):
    found = peak_memory(file(Image.new("RGBA", (8192, 4096)), "PNG", compress_level=1))
    assert found["blank"] == [False]
    assert 128 < found["grown"] < 2000  # the pixels alone take the first number
