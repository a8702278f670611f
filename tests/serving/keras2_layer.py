"""Checks BundleLayer in a program with Keras 2 only.

    TF_USE_LEGACY_KERAS=1 python -m tests.serving.keras2_layer FOLDER

writes a bundle into the folder, runs each function whose name begins with `check_` in a new folder, and
writes `answers.json`: the name of each function with "" or its error.
"""

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras

from keras_vit.errors import InputError
from keras_vit.serving.legacy import BundleLayer
from tests.serving import brightness_model
from tests.serving.brightness_model import expected, png

BUNDLE = Path(sys.argv[1]).absolute() / "models" / "steel" / "1"
BRIGHTNESSES = (0, 100, 128, 200, 255)
FILES = [png(brightness) for brightness in BRIGHTNESSES]
BYTES = tf.constant([*FILES, b"no image"])
PROBABILITIES = np.stack([*map(expected, BRIGHTNESSES), np.zeros(3)])
PIXELS = np.stack([np.full((4, 6, 1), brightness, "float32") for brightness in BRIGHTNESSES])


class WeightedModel(brightness_model.BrightnessModel):
    """A model whose features depend on a variable, which training must not change."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable([0.01, 0.02])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def features(self, image_bytes):
        brightness, decoded = brightness_model.brightness_of_files(image_bytes)
        return {"features": brightness[:, None] * self.scale, "reject": tf.cast(~decoded, tf.int32)}


def write_bundle(folder):
    model = WeightedModel()
    names = ("serving_default", "images", "images_uint8", "features")
    tf.saved_model.save(model, str(folder), signatures={name: getattr(model, name) for name in names})


def of_bytes(*arguments, **more):
    image_bytes = tf_keras.Input(shape=(), dtype="string")
    return tf_keras.Model(image_bytes, BundleLayer(*arguments, **more)(image_bytes))


def same(found, wanted, tolerance=1e-6):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


@contextlib.contextmanager
def refused(*parts):
    message = ""
    try:
        yield
    except InputError as error:
        message = str(error)
    assert message, "was not refused"
    assert all(part in message for part in parts), f"{message}, without one of {parts}"


def check_keras_3_is_not_imported(folder):
    assert "keras" not in sys.modules


def check_predict_gives_all_outputs(folder):
    answers = of_bytes(BUNDLE).predict(BYTES, batch_size=4, verbose=0)
    assert sorted(answers) == ["confidence", "label", "probabilities", "reject"]
    same(answers["probabilities"], PROBABILITIES)
    same(answers["confidence"], PROBABILITIES.max(axis=-1))
    assert answers["label"].tolist() == [b"dark", b"gray", b"gray", b"light", b"light", b""]
    assert answers["reject"].tolist() == [0, 0, 0, 0, 1, 1]


def check_one_output(folder):
    same(of_bytes(BUNDLE, output="probabilities").predict(BYTES, verbose=0), PROBABILITIES)


def check_pixels(folder):
    for signature, pixels in (("images", PIXELS), ("images_uint8", PIXELS.astype("uint8"))):
        images = tf_keras.Input((None, None, 1), dtype=pixels.dtype)
        layer = BundleLayer(BUNDLE, signature, output="probabilities")
        same(tf_keras.Model(images, layer(images)).predict(pixels, verbose=0), PROBABILITIES[:-1])
        same(layer(pixels), PROBABILITIES[:-1])


def check_half_precision_leaves_the_pixels_alone(folder):
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        same(BundleLayer(BUNDLE, "images", output="probabilities")(PIXELS), PROBABILITIES[:-1])
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")


def check_an_empty_batch(folder):
    answers = BundleLayer(BUNDLE)(tf.constant([], tf.string))
    assert answers["probabilities"].shape == (0, 3)
    assert answers["label"].shape == (0,)


def check_compute_output_shape(folder):
    for signature, inputs in (("serving_default", BYTES), ("features", BYTES), ("images", PIXELS)):
        layer = BundleLayer(BUNDLE, signature)
        shapes = {name: value.shape for name, value in layer(inputs).items()}
        assert layer.compute_output_shape(inputs.shape) == shapes
    layer = BundleLayer(BUNDLE, "features", output="features")
    assert layer.compute_output_shape((None,)).as_list() == [None, 2]


def check_the_config(folder):
    layer = BundleLayer(BUNDLE, "features", output="features", name="steel")
    config = json.loads(json.dumps(layer.get_config()))
    assert config["path"] == str(BUNDLE)
    again = BundleLayer.from_config(config)
    assert again.get_config() == layer.get_config()
    same(again(BYTES), layer(BYTES))


def check_a_head_learns_and_the_bundle_does_not(folder):
    image_bytes = tf_keras.Input(shape=(), dtype="string")
    layer = BundleLayer(BUNDLE, "features", output="features")
    head = tf_keras.layers.Dense(1)
    model = tf_keras.Model(image_bytes, head(layer(image_bytes)))
    assert [weight.name for weight in model.weights] == ["dense/kernel:0", "dense/bias:0"]
    # numpy() may return the memory of the variable, which training would change.
    before, kernel = layer(BYTES).numpy(), head.kernel.numpy().copy()
    model.compile(tf_keras.optimizers.SGD(0.1), "mse")
    model.fit(BYTES, np.arange(6.0), epochs=2, verbose=0)
    assert np.abs(head.kernel.numpy() - kernel).max() > 0.01
    assert np.array_equal(layer(BYTES), before)


def save_each_way(folder, path):
    """The same model saved in each format of Keras 2, and its answers."""
    model = of_bytes(path, "features", output="features")
    saved = [folder / "model.keras", folder / "model.h5", folder / "saved_model"]
    for target in saved:
        model.save(target)
    return saved, model.predict(BYTES, verbose=0)


def check_a_saved_model_answers_the_same(folder):
    saved, answers = save_each_way(folder, BUNDLE)
    for target in saved:
        same(tf_keras.models.load_model(target).predict(BYTES, verbose=0), answers)


def check_a_bundle_that_has_moved(folder):
    write_bundle(folder / "old")
    saved, answers = save_each_way(folder, folder / "old")
    (folder / "old").rename(folder / "new")
    for target in saved[:2]:
        with refused(f"There is no bundle {folder / 'old'}", "or a link to it, there"):
            tf_keras.models.load_model(target)
    # A SavedModel holds the graph and the variables.
    same(tf_keras.models.load_model(saved[2]).predict(BYTES, verbose=0), answers)
    (folder / "old").symlink_to(folder / "new")
    for target in saved:
        same(tf_keras.models.load_model(target).predict(BYTES, verbose=0), answers)


def check_a_relative_path_stays_relative(folder):
    os.chdir(folder)
    write_bundle("bundle")
    of_bytes("bundle").save("model.keras")
    assert tf_keras.models.load_model("model.keras").layers[-1].path == "bundle"


def check_a_folder_that_is_not_a_bundle(folder):
    (folder / "empty").mkdir()
    (folder / "file").write_text("text")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "saved_model.pb").write_bytes(b"\x00\x01\x02")
    cases = {
        folder / "none": ("There is no bundle", "keras-vit export"),
        folder / "empty": ("is not a SavedModel",),
        folder / "file": ("is not a SavedModel",),
        folder / "damaged": ("cannot be read as a SavedModel", "export it again"),
        BUNDLE.parent: (f"give one of them, such as {BUNDLE}",),
    }
    for path, parts in cases.items():
        with refused(str(path), *parts):
            BundleLayer(path)


def check_outputs_that_the_bundle_does_not_have(folder):
    with refused("no signature 'classify'", "features, images, images_uint8, serving_default"):
        BundleLayer(BUNDLE, "classify")
    with refused("no output 'logits'", "confidence, label, probabilities, reject"):
        BundleLayer(BUNDLE, output="logits")
    two = tf.Module()
    spec = tf.TensorSpec([None])
    two.add = tf.function(lambda a, b: {"sum": a + b}, input_signature=[spec, spec])
    tf.saved_model.save(two, str(folder / "two"), signatures=two.add)
    with refused("takes several inputs"):
        BundleLayer(folder / "two")


def check_inputs_that_do_not_fit(folder):
    cases = {
        "images": (PIXELS.astype("uint8"), "float32 (None, None, None, None). Received: uint8"),
        "images_uint8": (PIXELS, "uint8 (None, None, None, None). Received: float32"),
        "serving_default": (PIXELS, "string (None,). Received: float32"),
        "features": (BYTES[:, None], "string (None,). Received: string (6, 1)"),
    }
    for signature, (inputs, part) in cases.items():
        with refused(f"The signature {signature!r} takes {part}"):
            BundleLayer(BUNDLE, signature)(inputs)


def main(folder):
    assert os.environ["TF_USE_LEGACY_KERAS"] == "1"
    write_bundle(BUNDLE)
    answers = {}
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            own_folder = folder / name
            own_folder.mkdir()
            try:
                check(own_folder)
                answers[name] = ""
            except Exception:
                answers[name] = traceback.format_exc()
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
