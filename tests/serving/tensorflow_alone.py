"""Answers requests with a SavedModel, in a process with TensorFlow but without Keras and keras_vit.

python tensorflow_alone.py FOLDER REQUESTS ANSWERS. REQUESTS is a pickle of (signature, inputs by name);
ANSWERS becomes a pickle of the outputs of each request, by name, and of the names in ABSENT that were
imported.
"""

import pickle
import sys

ABSENT = ("keras", "keras_vit", "tf_keras")
for name in ABSENT:
    sys.modules[name] = None  # importing it raises ModuleNotFoundError

import tensorflow as tf  # noqa: E402


def main(folder, requests, answers):
    signatures = tf.saved_model.load(folder).signatures
    with open(requests, "rb") as file:
        loaded = pickle.load(file)
    answered = [
        {key: value.numpy() for key, value in signatures[signature](**as_tensors(inputs)).items()}
        for signature, inputs in loaded
    ]
    present = [name for name, module in sys.modules.items() if name.split(".")[0] in ABSENT and module]
    with open(answers, "wb") as file:
        pickle.dump((answered, present), file)


def as_tensors(inputs):
    # The dtype of an empty array of bytes is unknown.
    return {key: tf.constant(x, tf.string if x.dtype == object else x.dtype) for key, x in inputs.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
