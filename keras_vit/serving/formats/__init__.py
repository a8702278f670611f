"""Formats for other runtimes than TensorFlow: ONNX, LiteRT and OpenVINO."""

from keras_vit.serving.formats.write import write_format

__all__ = ["write_format"]
