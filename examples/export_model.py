"""A ViT exported by model.export, and called by TensorFlow without keras_vit.

    python examples/export_model.py
    KERAS_BACKEND=jax python examples/export_model.py

Keras exports from the TensorFlow and the JAX backend. On torch the error says what to do
instead. `keras-vit export` adds to this the reading and scaling of image files.
"""

import subprocess
import sys
import tempfile

import numpy as np

from keras_vit import InputError, ViT

CALL = """
import sys
import numpy as np
import tensorflow as tf

served = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
np.save(sys.argv[3], served.serve(images).numpy())
assert "keras_vit" not in sys.modules
"""


def main(folder):
    model = ViT(image_shape=(16, 16, 3), num_classes=4, patch_size=4, dim=32, depth=2, num_heads=4)
    images = np.random.default_rng(0).uniform(-1, 1, (5, 16, 16, 3)).astype("float32")

    try:
        model.export(f"{folder}/exported")
    except InputError as error:
        model.save(f"{folder}/model.keras")
        print(error)
        return

    np.save(f"{folder}/images.npy", images)
    files = [f"{folder}/{name}" for name in ("exported", "images.npy", "logits.npy")]
    subprocess.run([sys.executable, "-c", CALL, *files], check=True)
    difference = np.abs(np.load(f"{folder}/logits.npy") - model.predict(images, verbose=0)).max()
    assert difference < 1e-4, difference
    print(f"TensorFlow's answers differ from Keras's by {difference:.1e}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
