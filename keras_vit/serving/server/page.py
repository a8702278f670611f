"""The page at `/`: a picture in, label, confidence and rejection out, with what the model looks at."""

from typing import Any

import numpy as np

from keras_vit.serving.server.refusal import Refusal
from keras_vit.serving.server.served import DEFAULT, FILES, Served
from keras_vit.serving.server.tensors import to_json


class Page:
    """Answers the page.

    Args:
        served: the model.
    """

    def __init__(self, served: Served):
        self.served = served

    def html(self, nonce: str) -> str:
        return "<!doctype html><title>keras-vit serve</title>"

    def answer(self, file: bytes) -> dict[str, Any]:
        if not self.served.takes_files:
            raise Refusal("UNIMPLEMENTED", "This model does not answer about image files with labels.")
        outputs = self.served.call(DEFAULT, {FILES: np.array([file], object)})
        return {name: to_json(name, values)[0] for name, values in outputs.items()}
