"""A SavedModel with the signatures of an exported model that classifies images by their brightness.

It is small, quick to write, and simple enough to compute its answers with numpy.
"""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

CLASSES = ("dark", "gray", "light")
BRIGHTNESS = (0.0, 128.0, 255.0)
WIDTH = 20.0
TOO_BRIGHT = 250.0  # brighter ones are rejected


class BrightnessModel(tf.Module):
    def classify(self, brightness, decoded):
        distances = tf.abs(brightness[:, None] - tf.constant(BRIGHTNESS))
        probabilities = tf.where(decoded[:, None], tf.nn.softmax(-distances / WIDTH), 0.0)
        best = tf.gather(tf.constant(CLASSES), tf.argmax(probabilities, axis=-1))
        return {
            "probabilities": probabilities,
            "label": tf.where(decoded, best, ""),
            "confidence": tf.reduce_max(probabilities, axis=-1),
            "reject": tf.cast((brightness > TOO_BRIGHT) | ~decoded, tf.int32),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_default(self, image_bytes):
        return self.classify(*brightness_of_files(image_bytes))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, None], tf.float32, name="images")])
    def images(self, images):
        return self.classify(tf.reduce_mean(images, axis=(1, 2, 3)), tf.ones(tf.shape(images)[:1], tf.bool))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, None], tf.uint8, name="images")])
    def images_uint8(self, images):
        return self.images(tf.cast(images, tf.float32))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def features(self, image_bytes):
        brightness, decoded = brightness_of_files(image_bytes)
        return {"features": brightness[:, None], "reject": tf.cast(~decoded, tf.int32)}


def brightness_of_files(image_bytes):
    # A file with the first bytes of a PNG is decoded. A damaged PNG fails the request.
    decoded = tf.strings.regex_full_match(image_bytes, r"\CPNG\C*")
    brightness = tf.map_fn(brightness_of_file, (image_bytes, decoded), fn_output_signature=tf.float32)
    return brightness, decoded


def brightness_of_file(file):
    encoded, decoded = file
    return tf.cond(
        decoded, lambda: tf.reduce_mean(tf.cast(tf.io.decode_png(encoded), tf.float32)), lambda: 0.0
    )


def write(folder):
    """Writes the model into a folder and returns the folder."""
    model = BrightnessModel()
    signatures = {
        name: getattr(model, name) for name in ("serving_default", "images", "images_uint8", "features")
    }
    tf.saved_model.save(model, str(folder), signatures=signatures)
    return folder


def png(brightness, size=(8, 8)):
    """The bytes of a PNG of one brightness."""
    file = io.BytesIO()
    Image.new("L", size, brightness).save(file, "PNG")
    return file.getvalue()


def noise_png(side, seed=0):
    """The bytes of a PNG that cannot be compressed: a little more than side * side."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), "uint8")).save(file, "PNG")
    return file.getvalue()


def expected(brightness):
    """Probabilities (3,) of an image of one brightness, computed with numpy."""
    scores = np.exp(-np.abs(brightness - np.array(BRIGHTNESS)) / WIDTH)
    return scores / scores.sum()
