"""The part of a served run that every format has operations for: from pixels at the model's size on.

Decoding files and antialiased resizing exist in TensorFlow only. What is left is written as a graph without
variables, and each format is made of that.
"""

from pathlib import Path

import numpy as np

from keras_vit.data.preprocess import scale_pixels
from keras_vit.errors import InputError
from keras_vit.evaluation.calibration import softmax
from keras_vit.runs.folder import Run

MAX_BYTES = 2**31 - 1
"""A protobuf (the graph with its weights, and an ONNX file) and a FlatBuffer (LiteRT) hold no more."""


class PortableGraph:
    """A run in float32, whatever precision it was trained in, with weights that are constants.

    Converters lose the variables of Keras 3: LiteRT's makes a file of such a SavedModel that answers NaN.

    Args:
        run: a finished run, with Keras on the TensorFlow backend.

    Raises:
        InputError: the backend is another, or the weights take 2 GiB or more.
    """

    def __init__(self, run: Run):
        import keras

        if keras.backend.backend() != "tensorflow":
            raise InputError(
                f"The formats are made in TensorFlow, and Keras is on {keras.backend.backend()}: export in a "
                "process with KERAS_BACKEND=tensorflow, which reads the runs of every backend."
            )
        from keras_vit.serving.graph import all_outputs

        self.image_shape = run.preprocessing.image_shape
        self.temperature = run.temperature
        self.rejection = run.rejection
        self.model = float32_twin(run.model)
        size = 4 * self.model.count_params()
        if size > MAX_BYTES:
            raise InputError(
                f"The weights take {size / 2**30:.1f} GiB in float32, and these formats hold less than 2: "
                "give --format savedmodel, which has no such limit."
            )
        self.outputs = all_outputs(self.model)

    def function(self):
        """What is converted, a `tf.function`.

        From `images`, float32 (batch, height, width, channels) in 0..255, to a dict: `probabilities` float32
        (batch, classes), calibrated; `reject` int32 (batch,), 1 where the image is unlike those of training;
        `features` float32 (batch, dim), what the head sees.
        """
        import tensorflow as tf

        trainable = [weight.numpy() for weight in self.outputs.trainable_variables]
        others = [weight.numpy() for weight in self.outputs.non_trainable_variables]

        def answer(images):
            # Tensors made outside would be captured: inputs of the graph, and no constants in it.
            weights = (
                [tf.constant(weight) for weight in trainable],
                [tf.constant(weight) for weight in others],
            )
            found, _ = self.outputs.stateless_call(*weights, scale_pixels(images), training=False)
            features, judged, logits = found
            return {
                "probabilities": tf.nn.softmax(logits / self.temperature),
                "reject": self._reject(images, judged),
                "features": features,
            }

        spec = tf.TensorSpec((None, *self.image_shape), tf.float32, name="images")
        return tf.function(answer, input_signature=[spec])

    def save(self, folder: Path) -> Path:
        """Writes it as a SavedModel with one signature, `images`, and returns the folder."""
        import tensorflow as tf

        module = tf.Module()
        module.answer = self.function()
        tf.saved_model.save(module, str(folder), signatures={"images": module.answer})
        return folder

    def expected(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """What Keras says of the same images: `probabilities`, `features`, and `distance`.

        `distance` is float64 (n,), in thresholds of the rejection: an image above 1 is to be rejected. It is
        all 0 where the run rejects nothing.
        """
        scaled = np.asarray(scale_pixels(images))
        features, judged, logits = self.outputs.predict(scaled, batch_size=256, verbose=0)
        distance = np.zeros(len(images))
        if self.rejection is not None:
            distance = self.rejection.distances(judged) / self.rejection.threshold
        return {
            "probabilities": softmax(logits / self.temperature),
            "features": features,
            "distance": distance,
        }

    def _reject(self, images, judged):
        import tensorflow as tf

        from keras_vit.serving.graph import is_foreign

        # ReLU hides NaN, so the pixels themselves are asked.
        usable = tf.math.is_finite(tf.reduce_sum(images, axis=(1, 2, 3)))
        return tf.cast(is_foreign(self.rejection, judged) | ~usable, tf.int32)


def float32_twin(model):
    """A `ViT` with the same weights that computes in float32: the model itself where it does already."""
    from keras_vit.model.vit import ViT

    config = model.get_config()
    if config["dtype"] == "float32":
        return model
    twin = ViT.from_config({**config, "dtype": "float32"})
    twin.set_weights(model.get_weights())
    return twin
