"""OpenVINO IR: an .xml file of the graph and a .bin file of the weights, for Intel hardware."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_vit.serving.formats.portable import PortableGraph

FILE = "model.xml"
PACKAGES = ("openvino",)
EMPTY_BATCH = True
RUNTIME = (
    "OpenVINO. On processors with bfloat16, OpenVINO computes in bfloat16, which changes probabilities by "
    'hundredths: compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}) gives those that were '
    "compared with Keras."
)


def convert(graph: PortableGraph, folder: Path, representative: np.ndarray | None = None) -> None:
    """Writes `model.xml` and `model.bin` with a dynamic batch and weights in float32.

    Args:
        graph: what to convert.
        folder: of the files.
        representative: not used.
    """
    import openvino

    model = openvino.Core().read_model(graph.save(folder / "saved_model"))
    openvino.save_model(model, folder / FILE, compress_to_fp16=False)


def load(folder: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function from images (batch, height, width, channels) to a dict of outputs, run in float32."""
    import openvino

    model = openvino.Core().compile_model(folder / FILE, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def answer(images):
        return {name: value for output, value in model(images).items() for name in output.names}

    return answer
