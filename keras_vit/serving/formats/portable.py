"""The part of a served run that every format has operations for: it begins at pixels of the model's size.

Only TensorFlow has operations that decode files and resize with antialiasing. The rest is written as a graph
without variables, and each format is converted from that.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit.errors import InputError
from keras_vit.model.vit import ViT
from keras_vit.runs.answer import answer_images, answer_model
from keras_vit.runs.folder import Run
from keras_vit.serving import label_comparison, set_comparison
from keras_vit.serving.named_comparison import to_rule

OUTPUTS = ("probabilities", "reject", "features")
MAX_BYTES = 2**31 - 1
"""The most that a protobuf (the graph with its weights, an ONNX file) or a FlatBuffer (LiteRT) can hold."""


class PortableGraph:
    """A run in float32, whatever precision it was trained in, with weights that are constants.

    Converters lose the variables of Keras 3: LiteRT's converter makes a file of such a SavedModel that
    answers NaN.

    Args:
        run: a finished run, with Keras on the TensorFlow backend.
        flips: as of `answer_model`.

    Raises:
        InputError: Keras is on another backend, or the weights take 2 GiB or more.
    """

    def __init__(self, run: Run, flips: bool = False):
        if keras.backend.backend() != "tensorflow":
            raise InputError(
                f"The formats are made in TensorFlow, and Keras is on {keras.backend.backend()}: export in a "
                "process with KERAS_BACKEND=tensorflow, which reads the runs of every backend."
            )
        model = float32_twin(run.model)
        size = 4 * model.count_params()
        if size > MAX_BYTES:
            raise InputError(
                f"The weights take {size / 2**30:.1f} GiB in float32, and these formats hold less than 2: "
                "give --format savedmodel, which has no such limit."
            )
        self.rejection = run.rejection
        self.preprocessing = run.preprocessing
        self.sets, self.rule = run.prediction_sets, run.rule
        self.answers = answer_model(
            *(model, run.temperature, run.rejection, run.preprocessing, flips),
            sets=self.sets,
            rule=self.rule,
            thresholds=run.thresholds,
        )
        self.outputs: tuple[str, ...] = OUTPUTS if self.sets is None else OUTPUTS + set_comparison.OUTPUTS
        self.outputs += () if self.rule is None else ("label",)
        self.outputs += label_comparison.OUTPUTS if run.several else ()

    def function(self) -> Any:
        """The `tf.function` that is converted.

        It takes `images`, float32 (batch, height, width, channels) in 0..255, and returns a dict of the
        outputs `probabilities`, `reject` and `features` of `answer_model`, and of a run with prediction sets
        `prediction_set` and `refer`, of a run with a rule `label`, of one with several labels `labels` and
        `thresholds`.
        """
        import tensorflow as tf

        trainable = [weight.numpy() for weight in self.answers.trainable_variables]
        others = [weight.numpy() for weight in self.answers.non_trainable_variables]

        def answers(images):
            # Tensors made outside would be captured: they would be inputs of the graph, not constants in it.
            weights = (
                [tf.constant(weight) for weight in trainable],
                [tf.constant(weight) for weight in others],
            )
            found, _ = self.answers.stateless_call(*weights, images, training=False)
            return {name: found[name] for name in self.outputs}

        spec = tf.TensorSpec(self.answers.input.shape, tf.float32, name="images")
        return tf.function(answers, input_signature=[spec])

    def save(self, folder: Path) -> Path:
        """Writes it as a SavedModel with one signature, `images`, and returns the folder."""
        import tensorflow as tf

        module = tf.Module()
        module.answers = self.function()
        tf.saved_model.save(module, str(folder), signatures={"images": module.answers})
        return folder

    def expected(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """What Keras answers for the same images: `probabilities`, `features`, and `distance`.

        `distance` (n,) is a multiple of the threshold: an image above 1 is to be rejected. It is 0 if the run
        rejects nothing. With prediction sets also the outputs of `to_thresholds`, and with a
        rule those of `to_rule`.
        """
        found = answer_images(self.answers, list(images), self.preprocessing)
        threshold = 1.0 if self.rejection is None else self.rejection.threshold
        return {
            "probabilities": found["probabilities"],
            "features": found["features"],
            "distance": found["distance"] / threshold,
            **set_comparison.to_thresholds(found, self.sets),
            **label_comparison.to_label_margins(found),
            **to_rule(found, self.rule),
        }


def float32_twin(model: ViT) -> ViT:
    """A `ViT` with the same weights that computes in float32: the model itself if it does already."""
    config = model.get_config()
    if config["dtype"] == "float32":
        return model
    twin = ViT.from_config({**config, "dtype": "float32"})
    twin.set_weights(model.get_weights())
    return twin
