"""`keras-vit request`"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from keras_vit.data.preprocess import TiffPages
from keras_vit.errors import InputError, ServerError
from keras_vit.process.backend import import_quietly
from keras_vit.process.exit_codes import FAILED, FINE
from keras_vit.text import say


@dataclass
class Request:
    """Classify image files with a model on a server: TensorFlow Serving, over REST or gRPC.

    Examples:
      keras-vit request localhost:8501 strip_17.jpg strip_18.png
      keras-vit request localhost:8500 strip_17.jpg --name steel --version 7
      keras-vit request localhost:8501 strip_17.jpg --json --labels models/vit/1/assets.extra/labels.txt
      keras-vit request localhost:8501 --signatures
    """

    address: Positional[str]
    """HOST:PORT of the server"""
    images: Positional[tuple[Path, ...]]
    """image files; TIFF, AVIF and DICOM are decoded here, others are sent unchanged"""
    name: str = "vit"
    """the name under which the model is served"""
    version: int | None = None
    """of the model; by default the latest"""
    protocol: Literal["grpc", "rest"] | None = None
    """by default grpc at port 8500, else rest; grpc needs the extra serving"""
    timeout: float = 30.0
    """seconds that an attempt may take, from connecting to the last byte; each retry has as many again"""
    retries: int = 3
    """how often a request is repeated if the server does not answer or is busy, after growing pauses"""
    batch_size: int = 32
    """images per request; fewer if their files are large"""
    tiff_page: TiffPages | None = None
    """which page of a TIFF is read, or channels, as the run was trained with"""
    labels: Path | None = None
    """the labels.txt of the model: --json then gives the probabilities by name instead of in its order"""
    signatures: bool = False
    """show the signatures of the model and their tensors instead of classifying images"""
    json: bool = False
    """print a JSON list with all probabilities"""

    def __call__(self) -> int:
        from keras_vit.serving import client

        if client.protocol_of(self.address, self.protocol) != "rest":  # REST needs no TensorFlow
            import_quietly(find_devices=True)
        options = {key: getattr(self, key) for key in ("name", "version", "protocol", "timeout", "retries")}
        if self.signatures:
            held = client.signatures(self.address, **options)
            say(*[json.dumps(held)] if self.json else client.signature_table(held).split("\n"))
            return FINE
        if not self.images:
            raise InputError("Give at least one image file after the server.")
        class_names = client.read_labels(self.labels) if self.labels else None
        failure = None
        try:
            answers = client.request(
                self.address, self.images, batch_size=self.batch_size, tiff_page=self.tiff_page, **options
            )
        except ServerError as error:
            answers, failure = error.answers, error
        found = client.to_json(answers, class_names)  # checks the labels, also for a table
        if self.json:
            say(json.dumps(found))
        elif answers:
            say(*client.table(answers).split("\n"))
        if failure:
            raise failure
        return FAILED if any(answer.error for answer in answers) else FINE
