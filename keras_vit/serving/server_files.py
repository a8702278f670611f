"""The files that TensorFlow Serving starts with: which models, which batches, and how to run it."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from keras_vit.errors import InputError
from keras_vit.files import read_bytes, write_text


def health_check(name: str) -> list[str]:
    """The `test` of a compose file's `healthcheck`: healthy once a version of a model answers.

    Asks the REST port 8501, from inside the container, for the model's status. The image tensorflow/serving
    has bash but neither curl nor wget (its Dockerfile adds only ca-certificates to Ubuntu), so bash opens the
    connection itself.

    Args:
        name: the name the model is served under.

    Returns:
        The words of the command. Its exit code is 0 if a version is AVAILABLE, otherwise 1. It holds no `$`,
        which a compose file would replace.
    """
    # HTTP/1.0: the server closes the connection after its answer, and grep comes to an end.
    request = rf"printf 'GET /v1/models/%s HTTP/1.0\r\n\r\n' '{quote(name, safe='')}' >&3"
    return [
        "CMD",
        "bash",
        "-c",
        f"exec 3<>/dev/tcp/127.0.0.1/8501 && {request} && grep -q '\"AVAILABLE\"' <&3",
    ]


MODELS = "models.config"
MODELS_BYTES = 16 * 1024**2

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""Sizes of the batches that the server makes of single requests; the warm-up covers each."""

WAIT_MICROSECONDS = 1000


def batching_config() -> str:
    """The text of `batching.config`: BatchingParameters of TensorFlow Serving's session_bundle_config.proto.

    The number of batch threads is not set: by default the server takes one per processor.
    """
    sizes = "\n".join(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES)
    return (
        f"max_batch_size {{ value: {BATCH_SIZES[-1]} }}\n"
        f"batch_timeout_micros {{ value: {WAIT_MICROSECONDS} }}\n"
        "max_enqueued_batches { value: 100 }\n"
        f"{sizes}\n"
    )


def read_models(path: Path) -> Any:
    """The ModelServerConfig in a `models.config`; an empty one if there is no such file.

    Raises:
        InputError: the file is not a ModelServerConfig, or cannot be read.
    """
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    if path.exists():
        try:
            text_format.Parse(read_bytes(path, MODELS_BYTES).decode("utf-8"), config)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): fix it, or remove it.") from error
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not a ModelServerConfig ({error}): fix it, or remove it.") from error
    return config


def add_model(path: Path, name: str) -> None:
    """Adds a model to a `models.config`, which is made if it does not exist; its other models stay."""
    from google.protobuf import text_format

    config = read_models(path)
    models = config.model_config_list.config
    if name not in [model.name for model in models]:
        models.add(name=name, base_path=f"/models/{name}", model_platform="tensorflow")
        write_text(path, text_format.MessageToString(config))


def compose_file(name: str, image: str) -> str:
    """The text of a `compose.yaml` that serves the models next to it.

    gRPC is on port 8500, REST on 8501. The server finds new versions on its own, and checks `models.config`
    for new models once a minute.

    Args:
        name: of the model whose answer means that the server is healthy.
        image: of TensorFlow Serving, with its tag.
    """
    return f"""services:
  serving:
    image: {image}
    command:
      - --model_config_file=/models/models.config
      - --model_config_file_poll_wait_seconds=60
      - --enable_batching=true
      - --batching_parameters_file=/models/batching.config
    volumes:
      - .:/models:ro
    ports:
      - "8500:8500"
      - "8501:8501"
    healthcheck:
      test: {json.dumps(health_check(name))}
      interval: 10s
      timeout: 5s
      retries: 6
      start_period: 60s
    restart: unless-stopped
"""
