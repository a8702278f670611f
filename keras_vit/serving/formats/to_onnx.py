"""ONNX: one file for ONNX Runtime and other programs that read the format."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_vit.serving.formats.portable import PortableGraph

FILE = "model.onnx"
PACKAGES = ("tf2onnx", "onnx", "onnxruntime")
OPSET = 17
EMPTY_BATCH = False  # ONNX Runtime cannot reshape a tensor without elements to an open size
RUNTIME = f"ONNX Runtime, or another runtime with opset {OPSET}: a batch of 1 or more"


def convert(graph: PortableGraph, folder: Path, representative: np.ndarray | None = None) -> None:
    """Writes `model.onnx` with a dynamic batch.

    Args:
        graph: what to convert.
        folder: of the file.
        representative: not used.
    """
    import onnx
    import tf2onnx

    function = graph.function()
    model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=OPSET)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"  # tf2onnx gives each another name
    onnx.checker.check_model(model)
    onnx.save(model, folder / FILE)


def load(folder: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function from images (batch, height, width, channels) to a dict of outputs, run by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))
