"""Images in, answers out: one Keras model that prediction, evaluation and all exported formats share."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_vit.data.image_set import Image
from keras_vit.data.pipeline import fits_in_memory, pixel_dataset, read_pixels, without_autotuning
from keras_vit.data.preprocess import HIGHEST, LOWEST, Preprocessing, scale_pixels
from keras_vit.evaluation.decision_rule import DecisionRule
from keras_vit.evaluation.ood import OODDetector
from keras_vit.evaluation.prediction_sets import PredictionSets
from keras_vit.runs.decision_outputs import named_class
from keras_vit.runs.label_outputs import label_outputs
from keras_vit.runs.ood_distance import OODDistance, ood_distance
from keras_vit.runs.ood_features import ood_features
from keras_vit.runs.set_outputs import set_outputs

FLIPS = 4
"""An image as it is, and its three mirror images."""

NOT_FINITE = (
    "the model gives no finite probabilities for it; its weights are damaged or its training diverged"
)

MAX_BATCH_SIZE = 256
MAX_BATCH_BYTES = 2**28


class Flips(layers.Layer):
    """Each image of a batch and its mirror images, as one batch of four times the size.

    The first quarter are the images as they are; then they are flipped left-right, upside down, and both.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(4 * batch, height, width, channels)`
    """

    def call(self, images):
        both = [images, ops.flip(images, axis=2)]
        return ops.concatenate([*both, *(ops.flip(half, axis=1) for half in both)])  # 4b h w c

    def compute_output_shape(self, input_shape):
        return (None if input_shape[0] is None else FLIPS * input_shape[0], *input_shape[1:])


def answer_model(
    model: keras.Model,
    temperature: float,
    rejection: OODDetector | None,
    preprocessing: Preprocessing,
    flips: bool = False,
    sets: PredictionSets | None = None,
    rule: DecisionRule | None = None,
    thresholds: np.ndarray | None = None,
) -> keras.Model:
    """What a run answers about images, as one functional model on the weights of its ViT.

    Args:
        model: a `ViT`.
        temperature: the logits are divided by it.
        rejection: which images are unlike the training images; `None` where the run has learned no threshold.
        preprocessing: how the pixels are scaled for the `ViT`.
        flips: whether the logits are the mean over the image and its three mirror images: left-right, upside
            down, and both. This takes four times as long. The temperature divides the mean; the other
            outputs are those of the image as it is.
        sets: which classes an image may be; `None` where the run has learned no thresholds.
        rule: which class is named; `None` for the likeliest.
        thresholds: of images with several labels, float32 (classes,), the probability from which on an image
            has a label; `None` for one class per image.

    Returns:
        A `keras.Model` from prepared pixels (batch, height, width, channels) in 0..255 to a dict:

        - `probabilities` float32 (batch, classes), calibrated;
        - `label` int32 (batch,), the class that is named: the likeliest, or that of the `rule`;
        - `confidence` float32 (batch,), the probability of `label`;
        - `reject` int32 (batch,), 1 where the image is unlike the training images, or where its pixels are
          out of range or its pixels or probabilities not finite;
        - `distance` float32 (batch,), to the nearest class; 0 without a `rejection`;
        - `features` float32 (batch, dim), the input of the head.

        With a `rule` also `likeliest` int32 (batch,), the class with the largest probability.

        With `sets` also:

        - `prediction_set` int32 (batch, classes), 1 for each class that the image may be; all 0 where
          `reject` is 1 for the pixels or probabilities;
        - `refer` int32 (batch,), 1 where a person should look at the image; 1 for such pixels, too;
        - `log_odds` float32 (batch, classes), what decides both.

        With `thresholds`, each of the `probabilities` is one by itself, `label` is the likeliest label, and
        there are also:

        - `labels` int32 (batch, classes), 1 for each label of the image; all 0 where `reject` is 1 for the
          pixels or probabilities;
        - `thresholds` float32 (batch, classes), from which probability on an image has a label.
    """
    features = model.extractor("features").output
    outputs = [features, model.output, *([ood_features(model).output] if rejection else [])]
    passed = keras.Model(model.input, outputs, name="forward")

    images = keras.Input(model.input.shape[1:], name="images")
    scaled = scale_pixels(images, preprocessing)
    features, logits, *judged = passed(Flips(name="flips")(scaled) if flips else scaled)
    logits = ops.cast(logits, "float32")
    if flips:
        logits = ops.mean(by_flip(logits), axis=0)
        features, *judged = (by_flip(values)[0] for values in (features, *judged))
    logits = logits / temperature
    probabilities = ops.softmax(logits) if thresholds is None else ops.sigmoid(logits)
    # The ReLU of a conv stem turns NaN into 0, so the pixels are checked too.
    usable = ops.isfinite(ops.sum(images, axis=(1, 2, 3))) & ops.isfinite(ops.sum(probabilities, axis=-1))
    usable &= ops.min(images, axis=(1, 2, 3)) >= LOWEST
    usable &= ops.max(images, axis=(1, 2, 3)) <= HIGHEST
    if rejection is None:
        distance, taken = ops.zeros_like(probabilities[:, 0]), usable
    else:
        distance = ood_distance(rejection)(judged[0])
        taken = usable & (distance <= rejection.threshold)  # NaN is not
    answers = {
        "probabilities": probabilities,
        "label": ops.argmax(probabilities, axis=-1),
        "confidence": ops.max(probabilities, axis=-1),
        "reject": 1 - ops.cast(taken, "int32"),
        "distance": distance,
        "features": ops.cast(features, "float32"),
    }
    named = None
    if rule is not None:
        named = named_class(probabilities, rule)
        numbers = np.arange(named.shape[-1], dtype="float32")
        answers |= {
            "label": ops.cast(ops.sum(named * numbers, axis=-1), "int32"),
            "confidence": ops.sum(named * probabilities, axis=-1),
            "likeliest": answers["label"],
        }
    if sets is not None:
        answers |= set_outputs(logits, usable, sets, named)
    if thresholds is not None:
        answers |= label_outputs(probabilities, usable, thresholds)
    return keras.Model(images, answers, name="answers")


def by_flip(values: keras.KerasTensor) -> keras.KerasTensor:
    """What the model returns for the output of `Flips`: (4 * batch, n) to (4, batch, n)."""
    return ops.reshape(values, (FLIPS, -1, values.shape[-1]))


def answer_images(
    model: keras.Model, images: Sequence[Image], preprocessing: Preprocessing
) -> dict[str, np.ndarray]:
    """The outputs of an `answer_model` for images that can be read.

    Args:
        model: what `answer_model` returns.
        images: files or pixels, none, one or more.
        preprocessing: of the model.
    """
    if not len(images):
        return {name: np.zeros((0, *output.shape[1:]), output.dtype) for name, output in model.output.items()}
    # Not `predict`: on TensorFlow it makes a tf.data pipeline, whose autotuning thread may delay its end.
    found = [_answer(model, batch) for batch in _batches(images, preprocessing, batch_size(model))]
    return {name: np.concatenate([answers[name] for answers in found]) for name in found[0]}


def answer_batch(model: keras.Model, pixels: np.ndarray, rows: int | None = None) -> dict[str, np.ndarray]:
    """The outputs of an `answer_model` for one batch.

    Args:
        model: what `answer_model` returns.
        pixels: prepared images, float32 (n, height, width, channels), no more than `batch_size(model)`.
        rows: the last image is repeated until there are so many: a compiled model compiles each number of
            rows anew. `None` for no more than there are.
    """
    count = len(pixels)
    if rows is not None and count < rows:
        pixels = np.concatenate([pixels, np.repeat(pixels[-1:], rows - count, axis=0)])
    return {name: values[:count] for name, values in _answer(model, pixels).items()}


SINGLE_IMAGES = 100
"""That are classified one by one before the model is compiled for them: a few hundred make up for it."""


def _answer(model: keras.Model, batch: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs for one batch.

    After `SINGLE_IMAGES` times that TensorFlow gets one image on its own, XLA compiles the model for it: an
    image of 28x28 pixels takes 1.4 ms of CPU instead of 3.4. Compiling takes seconds, which a process that
    classifies a few images does not spend. Only in float32, where the answers differ by less than 1e-5.
    """
    if len(batch) > 1 or keras.backend.backend() != "tensorflow":
        return model.predict_on_batch(batch)
    import tensorflow as tf

    known = _known(model)
    known["single"] = known.get("single", 0) + 1
    if known["single"] == SINGLE_IMAGES and _is_float32(model) and not tf.config.list_physical_devices("GPU"):
        shape = tf.TensorSpec((1, *model.input.shape[1:]), tf.float32)
        known["compiled"] = tf.function(
            lambda images: model(images, training=False), input_signature=[shape], jit_compile=True
        ).get_concrete_function()
    if "compiled" not in known:
        return model.predict_on_batch(batch)
    return {name: values.numpy() for name, values in known["compiled"](tf.constant(batch)).items()}


def _known(model: keras.Model) -> dict[str, Any]:
    """What is found out once for an `answer_model`: Keras lists its layers anew each time it is asked.

    Not set as an attribute, which Keras would follow and save with the model.
    """
    return vars(model).setdefault("_keras_vit_known", {})


def _is_float32(model: keras.Model) -> bool:
    """Whether all layers compute in float32."""
    return all(
        _is_float32(layer) if isinstance(layer, keras.Model) else layer.compute_dtype == "float32"
        for layer in model.layers
    )


def _batches(images: Sequence[Image], preprocessing: Preprocessing, size: int) -> Iterator[np.ndarray]:
    if fits_in_memory(len(images), preprocessing):
        pixels = read_pixels(images, preprocessing)
        return (pixels[start : start + size] for start in range(0, len(pixels), size))
    return without_autotuning(pixel_dataset(images, preprocessing).batch(size)).as_numpy_iterator()


def batch_size(model: keras.Model) -> int:
    """How many images an `answer_model` takes at once: their distances to all class centres need memory.

    With their mirror images there are not more of them in the model than without.
    """
    known = _known(model)
    if "batch_size" not in known:
        known["batch_size"] = _batch_size(model)
    return known["batch_size"]


def _batch_size(model):
    most = MAX_BATCH_SIZE // (FLIPS if any(isinstance(layer, Flips) for layer in model.layers) else 1)
    judges = [layer for layer in model.layers if isinstance(layer, OODDistance)]
    bytes_per_image = 4 * sum(int(np.prod(centers.shape)) for layer in judges for centers in layer.centers)
    return min(most, max(1, MAX_BATCH_BYTES // max(bytes_per_image, 1)))
