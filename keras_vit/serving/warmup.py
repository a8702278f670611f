"""The requests that TensorFlow Serving answers before it makes a new version available."""

from pathlib import Path

import numpy as np

from keras_vit.errors import InputError
from keras_vit.serving.server_files import BATCH_SIZES
from keras_vit.serving.version_folder import clear_errors

WARMUP = "tf_serving_warmup_requests"


def require_serving_api() -> None:
    """Raises InputError if tensorflow-serving-api is not installed."""
    try:
        import tensorflow_serving.apis  # noqa: F401
    except ImportError as error:
        raise InputError(
            'Exporting for TensorFlow Serving needs its API: pip install "keras-vit-defects[serving]".'
        ) from error


def write_warmup(extra: Path, name: str, signatures: dict[str, dict[str, np.ndarray]]) -> None:
    """Writes `assets.extra/tf_serving_warmup_requests`: each signature with each batch size of the server.

    Args:
        extra: the folder `assets.extra` of the version.
        name: of the model.
        signatures: signature -> input -> one example, with a leading axis of 1.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    logs = []
    for signature, inputs in signatures.items():
        for size in BATCH_SIZES:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            for key, example in inputs.items():
                batch = np.repeat(example, size, axis=0)
                request.inputs[key].CopyFrom(tf.make_tensor_proto(batch))
            logs.append(
                prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            )
    with (
        clear_errors("The warm-up requests cannot be written", extra),
        tf.io.TFRecordWriter(str(extra / WARMUP)) as writer,
    ):
        for log in logs:
            writer.write(log.SerializeToString())
