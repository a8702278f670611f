"""Decoding in the served graph: the pixels of training, or one black pixel and a flag, never an error."""

import numpy as np
import pytest
import tensorflow as tf

from keras_vit.data.declared_pixels import declared_pixels
from keras_vit.data.decode import decode_image
from keras_vit.data.probe import why_unreadable
from keras_vit.serving.decoding import MAX_PIXELS, decode_or_blank
from tests.serving.served_images import BAD, BOMBS, FILES, gif_of_frames, png_bomb

pytestmark = pytest.mark.same_on_every_backend

decode = tf.function(decode_or_blank, input_signature=[tf.TensorSpec([], tf.string)])
declared = tf.function(declared_pixels, input_signature=[tf.TensorSpec([], tf.string)])


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
