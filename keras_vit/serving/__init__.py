"""From a run folder to what serves it: the bundle for TF Serving, other formats, and Keras 2."""

from typing import Literal

Format = Literal["savedmodel", "onnx", "litert", "openvino", "timm", "huggingface"]
"""What a run can be exported as."""
