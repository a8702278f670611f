"""Decoding in the served graph: the pixels of training, or one black pixel and a flag, never an error."""

import numpy as np
import pytest
import tensorflow as tf

from keras_vit.data.declared_pixels import declared_pixels
from keras_vit.data.decode import are_plain, decode_image, decode_plain
from keras_vit.data.preprocess import Preprocessing, prepare_file
from keras_vit.data.probe import is_plain, why_unreadable
from keras_vit.serving.decoding import MAX_PIXELS, prepare_files
from tests.serving.decode_one import decode_or_blank
from tests.serving.served_images import BAD, BOMBS, FILES, gif_of_frames, png_bomb

pytestmark = pytest.mark.same_on_every_backend

decode = tf.function(decode_or_blank, input_signature=[tf.TensorSpec([], tf.string)])
declared = tf.function(declared_pixels, input_signature=[tf.TensorSpec([], tf.string)])

GRAY = Preprocessing((12, 10, 1))
PLAIN = [
    "gray JPEG",
    "colour JPEG",
    "progressive JPEG",
    "CMYK JPEG",
    "gray PNG",
    "gray PNG with alpha",
    "colour PNG",
    "PNG with alpha",
    "PNG with a palette",
    "PNG of 1 bit",
]
PLAIN_BAD = ["only a JPEG's first bytes", "truncated JPEG", "truncated PNG", "PNG bomb"]
COLOR_AS_STORED = Preprocessing((9, 9, 3), background=None, exif_orientation=False)


@pytest.mark.parametrize("kind", FILES)
def test_the_pixels_are_those_of_training(kind):
    pixels, decoded = decode(FILES[kind])
    assert decoded
    np.testing.assert_array_equal(pixels, decode_image(tf.constant(FILES[kind])))


@pytest.mark.parametrize("kind", FILES)
def test_the_size_is_known_before_anything_is_decoded(kind):
    frames = 3 if kind == "animated GIF" else 1  # all frames are decoded before the first one can be used
    assert declared(FILES[kind]) == 37 * 23 * frames


@pytest.mark.parametrize("kind", [*BAD, *BOMBS])
def test_bad_files_become_a_black_pixel_and_a_flag(kind):
    pixels, decoded = decode((BAD | BOMBS)[kind])
    assert not decoded
    np.testing.assert_array_equal(pixels, np.zeros((1, 1, 1)))


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_known_before_anything_is_decoded(kind):
    assert declared(BOMBS[kind]) > MAX_PIXELS


@pytest.mark.parametrize("size", [(8192, 4096), (4096, 8192)])
def test_the_largest_image_that_is_accepted(size):
    pixels, decoded = decode(png_bomb(*size))
    assert decoded
    assert pixels.shape == (size[1], size[0], 1)
    assert pixels.shape[0] * pixels.shape[1] == MAX_PIXELS


def test_the_first_frame_is_as_large_as_the_file_says_whatever_the_others_are():
    pixels, decoded = decode(gif_of_frames((5, 9), (20, 3)))
    assert decoded
    assert pixels.shape == (9, 5, 3)
    assert declared(gif_of_frames((5, 9), (20, 3))) == 9 * 20  # more than 5 * 9 + 20 * 3


def test_the_audit_refuses_frames_that_take_too_much_memory_too():
    wide_and_high = gif_of_frames((65535, 1), (1, 65535))
    assert why_unreadable(wide_and_high) == (
        "its frames have more than the 100 million pixels allowed together; take one of them"
    )
    assert why_unreadable(FILES["animated GIF"]) is None


@pytest.mark.parametrize("preprocessing", [GRAY, COLOR_AS_STORED], ids=["gray", "as stored"])
@pytest.mark.parametrize("bad", [BAD | BOMBS, {kind: (BAD | BOMBS)[kind] for kind in PLAIN_BAD}, {}])
def test_a_batch_is_prepared_as_its_files_are(bad, preprocessing):
    """With some files of other kinds, with plain ones only, and without bad ones."""
    good = FILES if bad.keys() != set(PLAIN_BAD) else {kind: FILES[kind] for kind in PLAIN}
    batch = [*bad.values(), *good.values(), *bad.values()]
    assert bool(tf.reduce_all(are_plain(tf.constant(batch)))) == (good is not FILES)
    serve = tf.function(lambda files: prepare_files(files, preprocessing), autograph=False)
    prepared, usable = serve(tf.constant(batch))
    np.testing.assert_array_equal(usable, [file in good.values() for file in batch])
    for file, image, is_usable in zip(batch, prepared, usable, strict=True):
        expected = prepare_file(tf.constant(file), preprocessing) if is_usable else tf.zeros_like(image)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_batch_in_which_nothing_is_decoded(count):
    prepared, usable = prepare_files(tf.constant([b"\xff\xd8 no more"] * count, tf.string), GRAY)
    np.testing.assert_array_equal(prepared, np.zeros((count, *GRAY.image_shape)))
    np.testing.assert_array_equal(usable, [False] * count)


def test_plain_files_give_the_same_pixels_in_the_smaller_graph():
    found = are_plain(tf.constant([*FILES.values()])).numpy()
    assert [kind for kind, is_plain in zip(FILES, found, strict=True) if is_plain] == PLAIN
    everything = [*FILES.values(), *BAD.values(), *BOMBS.values()]
    assert [is_plain(file) for file in everything] == are_plain(tf.constant(everything)).numpy().tolist()
    for kind in PLAIN:
        np.testing.assert_array_equal(decode_plain(tf.constant(FILES[kind])), decode(FILES[kind])[0])
