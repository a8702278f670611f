"""The served graph: image files or pixels in, calibrated probabilities, labels and rejections out."""

import keras
import tensorflow as tf

from keras_vit.data.preprocess import prepare_pixels, scale_pixels
from keras_vit.evaluation.ood import rejection_features
from keras_vit.runs.folder import Run
from keras_vit.serving.decoding import decode_or_blank

PROJECTION = "rejection_projection"  # the name of its operation


class ServedGraph(tf.Module):
    """What a run does to an image, as TensorFlow functions that `tf.saved_model.save` can write.

    Each method takes a batch of any size, also of none. Its preprocessing is that of training, the very
    function.

    Args:
        run: a finished run, with Keras on the TensorFlow backend.
    """

    def __init__(self, run: Run):
        super().__init__()
        self.preprocessing = run.preprocessing
        self.class_names = run.class_names
        self.temperature = run.temperature
        self.rejection = run.rejection
        outputs = all_outputs(run.model)
        self.outputs = outputs.__call__
        # Keras wraps its variables, and of those TensorFlow saves copies: the loader of TensorFlow Serving
        # would restore the copies, which no signature reads. So this module knows the variables alone.
        self.weights = [variable.value for variable in outputs.variables]

    def signatures(self) -> dict:
        """Name -> concrete function, as `tf.saved_model.save` takes them."""
        files = tf.TensorSpec([None], tf.string, name="image_bytes")
        floats = tf.TensorSpec([None, None, None, None], tf.float32, name="images")
        bytes_of_pixels = tf.TensorSpec([None, None, None, None], tf.uint8, name="images")
        return {
            name: tf.function(method).get_concrete_function(spec)
            for name, method, spec in (
                ("serving_default", self.classify_files, files),
                ("images", self.classify_pixels, floats),
                ("images_uint8", self.classify_pixels, bytes_of_pixels),
                ("features", self.features_of_files, files),
            )
        }

    def classify_files(self, image_bytes):
        """Image files to their classes.

        Args:
            image_bytes: string tensor (batch,): JPEG, PNG, BMP, GIF or WebP files of any size.

        Returns:
            A dict: `probabilities` float32 (batch, classes), calibrated; `label` string (batch,), the
            likeliest class; `confidence` float32 (batch,), its probability; `reject` int32 (batch,), 1 where
            the image looks unlike those of training, or cannot be decoded: then its probabilities are 0 and
            its label is empty.
        """
        return self._prepare_and(self.classify_prepared, self._prepare_file, image_bytes)

    def classify_pixels(self, images):
        """Pixels in 0..255, (batch, height, width, 1 to 4), to what `classify_files` returns."""
        few_channels = tf.debugging.assert_less_equal(
            tf.shape(images)[-1], 4, "images must have 1 to 4 channels"
        )
        with tf.control_dependencies([few_channels]):
            return self._prepare_and(self.classify_prepared, self._prepare_pixels, images)

    def features_of_files(self, image_bytes):
        """Image files to `features`, float32 (batch, dim): the head's input; 0 where one does not decode."""
        return self._prepare_and(self._features_of_prepared, self._prepare_file, image_bytes)

    def _prepare_and(self, answer, prepare, batch):
        """`answer` of the prepared images of a batch, in a graph of its own where there is one image.

        TensorFlow folds and fuses most operations away where it knows their shapes: one image then takes
        about half the time.
        """

        def one():
            image, usable = prepare(only(batch))
            return answer(image[None], tf.reshape(usable, (1,)))

        def many():
            kinds = (tf.TensorSpec(self.preprocessing.image_shape, tf.float32), tf.TensorSpec((), tf.bool))
            return answer(*tf.map_fn(prepare, batch, fn_output_signature=kinds))

        return tf.cond(tf.equal(tf.shape(batch)[0], 1), one, many)

    def _prepare_file(self, encoded):
        pixels, decoded = decode_or_blank(encoded)
        return prepare_pixels(pixels, self.preprocessing), decoded

    def _prepare_pixels(self, pixels):
        # The ReLU of a conv stem makes zeros of NaN.
        usable = tf.reduce_all(tf.math.is_finite(tf.cast(pixels, tf.float32)))
        return prepare_pixels(pixels, self.preprocessing), usable

    def _features_of_prepared(self, prepared, usable):
        features, foreign, probabilities = self._forward(prepared)
        usable &= is_finite(probabilities)
        return {
            "features": tf.where(usable[:, None], features, 0.0),
            "reject": tf.cast(foreign | ~usable, tf.int32),
        }

    def classify_prepared(self, prepared, usable):
        """From the model's size on: see `classify_files`."""
        _, foreign, probabilities = self._forward(prepared)
        usable &= is_finite(probabilities)
        best = tf.argmax(probabilities, axis=-1)
        return {
            "probabilities": tf.where(usable[:, None], probabilities, 0.0),
            "label": tf.where(usable, tf.gather(tf.constant(self.class_names), best), ""),
            "confidence": tf.where(usable, tf.reduce_max(probabilities, axis=-1), 0.0),
            "reject": tf.cast(foreign | ~usable, tf.int32),
        }

    def _forward(self, prepared):
        """Features (batch, dim), what is foreign (batch,), and probabilities (batch, classes)."""
        # TensorFlow's fused convolutions fail on no images, so there is always one.
        count = tf.shape(prepared)[0]
        if prepared.shape[0] is None:
            prepared = tf.pad(prepared, [[0, tf.maximum(0, 1 - count)], [0, 0], [0, 0], [0, 0]])
        features, judged, logits = self.outputs(scale_pixels(prepared), training=False)
        probabilities = tf.nn.softmax(logits / self.temperature)
        foreign = is_foreign(self.rejection, judged)
        return tf.cast(features, tf.float32)[:count], foreign[:count], probabilities[:count]


def is_foreign(rejection, judged):
    """`Rejection.rejects` in TensorFlow: (batch, features) to bool (batch,); `None` rejects nothing."""
    if rejection is None:
        return tf.zeros(tf.shape(judged)[:1], tf.bool)
    projected = tf.matmul(judged, tf.constant(rejection.projection), name=PROJECTION)  # b rank
    away = projected[:, None] - tf.constant(rejection.centers)  # b classes rank
    distances = tf.sqrt(tf.reduce_min(tf.reduce_sum(away**2, axis=-1), axis=-1))
    return ~(distances <= rejection.threshold)  # NaN is foreign


def all_outputs(model) -> keras.Model:
    """From images in [-1, 1] to features, what `Rejection` judges, and logits, in one pass."""
    judged = rejection_features(model).output
    return keras.Model(model.input, [model.extractor("features").output, judged, model.output], name="served")


def only(batch):
    """The one element of a batch, in such a way that it does not fail on others.

    TensorFlow may do the first steps of a branch before it knows which one it takes.
    """
    first = batch[:1]
    return tf.strings.reduce_join(first) if batch.dtype == tf.string else tf.reduce_sum(first, axis=0)


def is_finite(values):
    """Which rows hold neither NaN nor infinity."""
    return tf.reduce_all(tf.math.is_finite(values), axis=-1)
