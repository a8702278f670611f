"""The served graph: image files or pixels in, calibrated probabilities, labels and rejections out."""

import json
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_vit.data.preprocess import HIGHEST, LOWEST, prepare_pixels
from keras_vit.data.values import is_measured, lows_and_highs
from keras_vit.runs.answer import answer_model
from keras_vit.runs.folder import Run
from keras_vit.serving.decoding import prepare_files
from keras_vit.serving.sent import VALUES


class ServedGraph(tf.Module):
    """The answers of a run as TensorFlow functions that `tf.saved_model.save` can write.

    Each method takes a batch of any size, also an empty one. The preprocessing is the function that training
    uses, the answers are those of `answer_model`.

    Args:
        run: a finished run, with Keras on the TensorFlow backend.
        flips: as of `answer_model`.
    """

    def __init__(self, run: Run, flips: bool = False):
        super().__init__()
        self.preprocessing = run.preprocessing
        self.class_names = run.class_names
        sets, rule = run.prediction_sets, run.rule
        answers = answer_model(
            *(run.model, run.temperature, run.rejection, run.preprocessing, flips),
            sets=sets,
            rule=rule,
            thresholds=run.thresholds,
        )
        self.has_sets, self.has_rule = sets is not None, rule is not None
        self.several = run.several
        self.answers = self._called(answers)
        # As a function of its own, which all signatures share, it is traced once.
        prepare = tf.function(
            lambda files: prepare_files(files, run.preprocessing),
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,
        )
        self.prepare_files = lambda files: prepare(files)  # so that the SavedModel does not list it

    def _called(self, answers: keras.Model) -> Callable:
        """How the `answer_model` is called: tensors in, a dict of tensors out."""
        # Keras wraps its variables, and of wrapped ones TensorFlow saves copies: the loader of TensorFlow
        # Serving would restore the copies, which no signature reads. So this module holds only the variables.
        self.weights = [variable.value for variable in answers.variables]
        return answers.__call__

    def signatures(self) -> dict[str, Callable]:
        """Name -> concrete function, as `tf.saved_model.save` takes them."""
        return {
            name: tf.function(method).get_concrete_function(*specs)
            for name, (method, specs) in self.methods().items()
        }

    def methods(self) -> dict[str, tuple[Callable, list[tf.TensorSpec]]]:
        """Name of a signature -> its method, and the specs of its inputs, which have their names."""
        files = tf.TensorSpec([None], tf.string, name="image_bytes")
        channels = self.preprocessing.image_shape[2]
        shape = [None, None, None, channels if is_measured(channels) else None]
        floats = tf.TensorSpec(shape, tf.float32, name="images")
        bytes_of_pixels = tf.TensorSpec(shape, tf.uint8, name="images")
        found: dict[str, tuple[Callable, list[tf.TensorSpec]]] = {
            "serving_default": (self.classify_files, [files]),
            "images": (self.classify_pixels, [floats]),
            "images_uint8": (self.classify_pixels, [bytes_of_pixels]),
            "features": (self.features_of_files, [files]),
        }
        if self.preprocessing.pixel_range is not None:
            values = tf.TensorSpec(shape, tf.float32, name="values")
            inverted = tf.TensorSpec([None], tf.bool, name="inverted")
            found[VALUES] = (self.classify_values, [values, inverted])
        return found

    def classify_files(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Image files to their classes.

        Args:
            image_bytes: string tensor (batch,): JPEG, PNG, BMP, GIF or WebP files of any size.

        Returns:
            A dict: `probabilities` float32 (batch, classes), calibrated; `label` string (batch,), the
            likeliest class, or that of the run's rule; `confidence` float32 (batch,), its probability;
            `reject` int32 (batch,), 1 where the image is unlike the training images or cannot be decoded. If
            it cannot be decoded, its probabilities are 0 and its label is empty. If the run has learned
            prediction sets, also `prediction_set` int32 (batch, classes), 1 for each class that the image may
            be, and `refer` int32 (batch,), 1 where a person should look at it; 0 and 1 if it cannot be
            decoded. If the run has a rule, also `likeliest` string (batch,), the class with the largest
            probability.

            If an image may have several labels, `label` is the likeliest one, whether the image has it or
            not, and there are also: `labels` int32 (batch, classes), 1 for each label of the image, 0 if it
            cannot be decoded; `label_names` string (batch,), their names as a JSON list, such as
            `["rust", "dent"]`; `thresholds` float32 (batch, classes), from which probability on an image has
            a label.
        """
        return self._answer_by_size(self.classify_prepared, *self.prepare_files(image_bytes))

    def classify_pixels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Pixels in 0..255, (batch, height, width, 1 to 4), to what `classify_files` returns.

        With 2 or 4 channels the last one is alpha, unless the run has channels of measurement. An image with
        a pixel out of range, or not finite, counts as one that cannot be decoded.
        """
        most = max(4, self.preprocessing.image_shape[2])
        few_channels = tf.debugging.assert_less_equal(
            tf.shape(images)[-1], most, f"images must have 1 to {most} channels"
        )
        with tf.control_dependencies([few_channels]):
            prepared, usable = tf.cond(
                tf.equal(tf.shape(images)[0], 1),
                lambda: [values[None] for values in self._prepare_pixels(only(images))],
                lambda: tf.map_fn(self._prepare_pixels, images, fn_output_signature=self._prepared_spec),
            )
        return self._answer_by_size(self.classify_prepared, prepared, usable)

    def classify_values(self, values: tf.Tensor, inverted: tf.Tensor) -> dict[str, tf.Tensor]:
        """Values in the units of the files, (batch, height, width, channels), to what `classify_files` gives.

        The range of the run makes pixels of them. An image with a value that is not finite counts as one that
        cannot be decoded.

        Args:
            values: float32, without alpha.
            inverted: bool (batch,), whether the lowest value is white.
        """
        prepared, usable = tf.map_fn(
            self._prepare_values, (values, inverted), fn_output_signature=self._prepared_spec
        )
        return self._answer_by_size(self.classify_prepared, prepared, usable)

    @property
    def _prepared_spec(self):
        return [tf.TensorSpec(self.preprocessing.image_shape, tf.float32), tf.TensorSpec((), tf.bool)]

    def _prepare_values(self, image):
        values, inverted = image
        low, high = lows_and_highs(self.preprocessing.pixel_range or (0.0, 255.0))
        scaled = tf.clip_by_value((values - low) * (np.float32(255) / (high - low)), 0.0, 255.0)
        usable = tf.reduce_all(tf.math.is_finite(values))
        pixels = tf.where(inverted, 255.0 - scaled, scaled)
        return [prepare_pixels(tf.where(usable, pixels, 0.0), self.preprocessing), usable]

    def features_of_files(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Image files to `features`, float32 (batch, dim): the head's input; 0 if one cannot be decoded."""
        return self._answer_by_size(self._features_of_prepared, *self.prepare_files(image_bytes))

    def _answer_by_size(self, answer, prepared, usable):
        """`answer` of a batch; a batch of one image has a graph of its own.

        TensorFlow folds and fuses most operations if it knows their shapes, which about halves the time for
        one image.
        """
        return tf.cond(
            tf.equal(tf.shape(prepared)[0], 1),
            lambda: answer(only(prepared)[None], tf.reduce_all(usable[:1], axis=0, keepdims=True)),
            lambda: answer(prepared, usable),
        )

    def _prepare_pixels(self, pixels):
        # A crop may cut away pixels out of range, so they are checked before it. NaN is in no range.
        values = tf.cast(pixels, tf.float32)
        usable = tf.reduce_all((values >= LOWEST) & (values <= HIGHEST))
        return [prepare_pixels(pixels, self.preprocessing), usable]

    def classify_prepared(self, prepared: tf.Tensor, usable: tf.Tensor) -> dict[str, tf.Tensor]:
        """Images at the model's size to what `classify_files` returns.

        Args:
            prepared: float32 (batch, height, width, channels) in 0..255.
            usable: bool (batch,), whether the image could be decoded and its pixels are in range.
        """
        found, usable = self._answer(prepared, usable)
        answers = {
            "probabilities": tf.where(usable[:, None], found["probabilities"], 0.0),
            "label": self._name_of(found["label"], usable),
            "confidence": tf.where(usable, found["confidence"], 0.0),
            "reject": tf.where(usable, found["reject"], 1),
        }
        if self.has_rule:
            answers["likeliest"] = self._name_of(found["likeliest"], usable)
        if self.has_sets:
            answers["prediction_set"] = tf.where(usable[:, None], found["prediction_set"], 0)
            answers["refer"] = tf.where(usable, found["refer"], 1)
        if self.several:
            labels = tf.where(usable[:, None], found["labels"], 0)
            answers |= {
                "labels": labels,
                "label_names": names_of_labels(labels, self.class_names),
                "thresholds": found["thresholds"],
            }
        return answers

    def _name_of(self, number, usable):
        return tf.where(usable, tf.gather(tf.constant(self.class_names), number), "")

    def _features_of_prepared(self, prepared, usable):
        found, usable = self._answer(prepared, usable)
        return {
            "features": tf.where(usable[:, None], found["features"], 0.0),
            "reject": tf.where(usable, found["reject"], 1),
        }

    def _answer(self, prepared, usable):
        """The outputs of the `answer_model`, and which images have finite ones."""
        # TensorFlow's fused convolutions fail on an empty batch, so there is always one image.
        count = tf.shape(prepared)[0]
        if prepared.shape[0] is None:
            prepared = tf.pad(prepared, [[0, tf.maximum(0, 1 - count)], [0, 0], [0, 0], [0, 0]])
        found = {name: values[:count] for name, values in self.answers(prepared, training=False).items()}
        return found, usable & tf.reduce_all(tf.math.is_finite(found["probabilities"]), axis=-1)


def names_of_labels(labels: tf.Tensor, class_names: Sequence[str]) -> tf.Tensor:
    """The names of labels as a JSON list: int32 (batch, classes) of 0 and 1 to string (batch,)."""
    names = tf.constant([f", {json.dumps(name, ensure_ascii=False)}" for name in class_names])
    joined = tf.strings.reduce_join(tf.where(labels > 0, names, ""), axis=1)
    return tf.strings.join(["[", tf.strings.regex_replace(joined, "^, ", ""), "]"])


def only(batch: tf.Tensor) -> tf.Tensor:
    """The one element of a batch, computed so that it does not fail on other batches.

    TensorFlow may run the first steps of a branch before it knows which branch it takes.
    """
    return tf.reduce_sum(batch[:1], axis=0)
