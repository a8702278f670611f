"""The verbs of the command keras-vit that bring a model to where it answers."""

import contextlib
import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from keras_vit.errors import InputError, ServerError
from keras_vit.serving import Format


@dataclass(frozen=True)
class Export:
    """Write the model of a run for TensorFlow Serving, or for another runtime.

    The export is compared with the Keras model on the run's test images before it gets its place.

    Examples:
      keras-vit export runs/first --to models
      keras-vit export runs/first --to models --name steel --version 7
      keras-vit export runs/first --to models --format litert --int8
    """

    run: Positional[Path]
    """a run folder"""
    to: Path
    """the folder of all models; the export is TO/NAME/VERSION"""
    name: str | None = None
    """of the model: vit, or vit-FORMAT for another format than a SavedModel"""
    version: int | None = None
    """by default the one after the newest"""
    format: Format = "savedmodel"
    """savedmodel takes image files; the others take pixels of the model's size"""
    int8: bool = False
    """8 bits for the fully connected layers, with litert"""
    data: str | None = None
    """other images to compare on, where the run's own are gone"""
    json: bool = False
    """print the folder and the comparison as JSON"""

    def __call__(self):
        from keras_vit.serving.bundle import export

        # The converters print; a script that asks for JSON reads nothing else on the standard output.
        with contextlib.redirect_stdout(sys.stderr):
            exported = export(
                self.run,
                self.to,
                name=self.name,
                version=self.version,
                format=self.format,
                int8=self.int8,
                data=self.data,
            )
        found = exported.comparison
        if self.json:
            print(json.dumps({"path": str(exported.path), "comparison": dataclasses.asdict(found)}))
            return
        print(
            f"compared with Keras on {found.images} images: probabilities differ by {found.difference:.1e} "
            f"at most, the same class for {found.same_class}"
        )
        print(f"exported: {exported.path}")


@dataclass(frozen=True)
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
    """image files; they are sent as they are"""
    name: str = "vit"
    """the name the model is served under"""
    version: int | None = None
    """of the model; by default the latest"""
    protocol: Literal["grpc", "rest"] | None = None
    """by default grpc at port 8500, else rest; grpc needs the extra serving"""
    timeout: float = 30.0
    """seconds to wait for the answer to one request"""
    retries: int = 3
    """how often a request is made again where nobody listens or the server is busy, with growing waits"""
    batch_size: int = 32
    """images a request; fewer where their files are large"""
    labels: Path | None = None
    """the labels.txt of the model: --json names the probabilities by it, which else are in its order"""
    signatures: bool = False
    """show what the model can be asked, and its tensors, in place of asking about images"""
    json: bool = False
    """print a JSON list with all probabilities"""

    @property
    def over_rest(self) -> bool:
        """Whether REST is asked, which needs no TensorFlow."""
        from keras_vit.serving.client import protocol_of

        return protocol_of(self.address, self.protocol) == "rest"

    def __call__(self):
        from keras_vit.cli.main import FAILED, FINE
        from keras_vit.serving import client

        options = {key: getattr(self, key) for key in ("name", "version", "protocol", "timeout", "retries")}
        if self.signatures:
            found = client.signatures(self.address, **options)
            print(json.dumps(found) if self.json else client.signature_table(found))
            return FINE
        if not self.images:
            raise InputError("Give at least one image file after the server.")
        class_names = client.read_labels(self.labels) if self.labels else None
        failure = None
        try:
            answers = client.request(self.address, self.images, batch_size=self.batch_size, **options)
        except ServerError as error:
            answers, failure = error.answers, error
        if self.json:
            print(json.dumps(client.to_json(answers, class_names)))
        elif answers:
            print(client.table(answers))
        if failure:
            raise failure
        return FAILED if any(answer.error for answer in answers) else FINE
