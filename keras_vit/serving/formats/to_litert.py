"""LiteRT (TensorFlow Lite): one .tflite file for phones and small computers."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.serving.formats.portable import PortableGraph

FILE = "model.tflite"
PACKAGES = ("ai_edge_litert",)
EMPTY_BATCH = False  # its CPU delegate fails on an empty batch of some models
RUNTIME = 'LiteRT: the signature "images", whose batch of 1 or more is resized at each call'
SIGNATURE = "images"


def convert(graph: PortableGraph, folder: Path, representative: np.ndarray | None = None) -> None:
    """Writes `model.tflite` with a dynamic batch.

    With representative images, the fully connected layers, which hold nearly all weights of a ViT, are int8:
    weights per channel, activations per tensor. Everything else stays in float32. A model that is int8 as a
    whole loses the variance of the layer normalisations: on 360 images of NEU-DET it predicted another class
    for 4, 3 of which Keras had predicted with high confidence, and rejected a quarter of all images.

    Args:
        graph: what to convert.
        folder: of the file.
        representative: prepared images float32 (n, height, width, channels) in 0..255, whose activations set
            the ranges of int8; `None` for float32.
    """
    path = folder / FILE
    saved = graph.save(folder / "saved_model")
    path.write_bytes(_converter(saved).convert())
    if representative is not None:
        path.write_bytes(_quantized(saved, _nodes_left_in_float(path), representative))


def load(folder: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function from images (batch, height, width, channels) to a dict of outputs, run by LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(folder / FILE)).get_signature_runner(SIGNATURE)
    return lambda images: runner(images=images)


def _converter(saved: Path) -> Any:
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[SIGNATURE])


def _quantized(saved: Path, nodes: list[str], representative: np.ndarray) -> bytes:
    import tensorflow as tf
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    def images():
        for image in representative:
            yield {"images": image[None]}

    converter = _converter(saved)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = images
    operations = [name for name in vars(BuiltinOperator) if name.isupper() and name != "FULLY_CONNECTED"]
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=operations, denylisted_nodes=nodes)
    with warnings.catch_warnings():
        # TensorFlow's own quantiser uses its own interpreter, and warns that others should not.
        warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated", UserWarning)
        # The only public way to choose the operations; nothing is debugged.
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=images, debug_options=options
        )
        return debugger.get_nondebug_quantized_model()


def _nodes_left_in_float(path: Path) -> list[str]:
    """The projection of the out-of-distribution features, which enlarges small differences.

    The converter adds digits to the name of an operation.
    """
    from ai_edge_litert.interpreter import Interpreter

    from keras_vit.runs.ood_distance import PROJECTION

    tensors = Interpreter(model_path=str(path)).get_tensor_details()
    return [tensor["name"] for tensor in tensors if PROJECTION in tensor["name"]]
