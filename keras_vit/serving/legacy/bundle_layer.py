"""An exported bundle as a layer of a Keras 2 model."""

import os
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_vit.errors import InputError, first_line
from keras_vit.serving.version_folder import versions_of

try:
    import tf_keras
except ImportError as error:
    raise InputError(
        f'BundleLayer needs Keras 2: pip install "keras-vit-defects[legacy]". ({error})'
    ) from error


@tf_keras.saving.register_keras_serializable(package="keras_vit")
class BundleLayer(tf_keras.layers.Layer):
    """An exported bundle as a layer of a Keras 2 model, for inference.

    It corresponds to `TFSMLayer` in Keras 3
    (https://keras.io/api/layers/backend_specific_layers/tfsm_layer). The layer has no weights of its own: the
    layers after it can be trained, the bundle cannot.

    A model with this layer that is saved as `.keras` or `.h5` stores the path of the bundle as it was given,
    and loads the bundle from there; import this class before you load the model. A model saved in
    TensorFlow's SavedModel format holds a copy of the bundle and does not need the path. A bundle is a graph
    that runs: use only bundles that you trust.

    Args:
        path: `DIR/NAME/VERSION`, a folder that `keras-vit export` made; a relative path starts at the working
            directory.
        signature: `"serving_default"` and `"features"` take the bytes of image files; `"images"` takes
            float32 and `"images_uint8"` uint8 pixels in 0..255.
        output: the name of the only output wanted, such as `"probabilities"`; `None` for a dict of all.

    Input shape:
        `(batch,)` strings, or pixels `(batch, height, width, channels)`.

    Output shape:
        `"probabilities"` (batch, classes); `"label"`, `"confidence"`, `"reject"` (batch,); of the signature
        `"features"`: `"features"` (batch, dim) and `"reject"`.

    Raises:
        InputError: there is no bundle at the path, it has no such signature or output, or the inputs have
            another type or rank.

    Example:
        >>> image_bytes = tf_keras.Input(shape=(), dtype="string")
        >>> answers = BundleLayer("served/steel/1")(image_bytes)
        >>> model = tf_keras.Model(image_bytes, answers)
        >>> model.predict(tf.constant([open("strip_17.jpg", "rb").read()]))["label"]
        array([b'scratches'], dtype=object)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        signature: str = "serving_default",
        output: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.path = os.fspath(path)
        self.signature = signature
        self.output_name = output
        self._bundle = _load(self.path)  # kept: it owns the variables of the function
        self._function = self._find_signature()
        ((self._input_name, self._wanted),) = self._function.structured_input_signature[1].items()
        if output is not None and output not in self._function.structured_outputs:
            raise InputError(
                f"{self.path} has no output {output!r} in the signature {signature!r}: "
                f"it has {', '.join(sorted(self._function.structured_outputs))}."
            )

    def _find_signature(self):
        signatures = self._bundle.signatures
        if self.signature not in signatures:
            raise InputError(
                f"{self.path} has no signature {self.signature!r}: it has {', '.join(sorted(signatures))}."
            )
        function = signatures[self.signature]
        if len(function.structured_input_signature[1]) != 1:
            raise InputError(
                f"The signature {self.signature!r} of {self.path} takes several inputs: "
                "give a bundle that `keras-vit export` made."
            )
        return function

    def call(self, inputs):
        inputs, wanted = tf.convert_to_tensor(inputs), self._wanted
        if inputs.dtype != wanted.dtype or not wanted.shape.is_compatible_with(inputs.shape):
            raise InputError(
                f"The signature {self.signature!r} takes {wanted.dtype.name} {wanted.shape}. "
                f"Received: {inputs.dtype.name} {inputs.shape}"
            )
        outputs = self._function(**{self._input_name: inputs})
        return outputs if self.output_name is None else outputs[self.output_name]

    def compute_output_shape(self, input_shape):
        batch = tf.TensorShape(input_shape)[0]
        shapes = {
            name: tf.TensorShape([batch, *spec.shape[1:]])
            for name, spec in self._function.structured_outputs.items()
        }
        return shapes if self.output_name is None else shapes[self.output_name]

    def get_config(self):
        config = super().get_config()
        config.update(path=self.path, signature=self.signature, output=self.output_name)
        return config

    @classmethod
    def from_config(cls, config):
        # The method of Keras 2 turns what `__init__` raises into a TypeError.
        return cls(**config)


def _load(path):
    if not tf.saved_model.contains_saved_model(path):
        raise InputError(_why_not_a_bundle(path))
    try:
        return tf.saved_model.load(path)
    except Exception as error:  # TensorFlow raises exceptions of many types
        raise InputError(
            f"{path} cannot be read as a SavedModel ({first_line(error)}): export it again."
        ) from error


def _why_not_a_bundle(path):
    if not Path(path).exists():
        return (
            f"There is no bundle {path}: give the folder DIR/NAME/VERSION that `keras-vit export` made. "
            "A saved model loads the bundle from the path of its BundleLayer: put the bundle, or a link to "
            "it, there."
        )
    versions = versions_of(Path(path))
    if versions:
        return (
            f"{path} holds versions of a bundle: give one of them, such as {Path(path) / str(versions[-1])}."
        )
    return f"{path} is not a SavedModel: give the folder DIR/NAME/VERSION that `keras-vit export` made."
