"""Asks a server about image files: TensorFlow Serving with a model that `keras-vit export` made."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random_exponential,
)

from keras_vit.errors import InputError, ServerError, check_choice, check_range
from keras_vit.serving.protocols import PORTS, Grpc, Rest

PROTOCOLS: dict[str, type[Grpc] | type[Rest]] = {"grpc": Grpc, "rest": Rest}
GRPC_PORT = 8500
# Of image files in a request: as base64 they stay below 4 MiB, the most that gRPC and many a proxy let
# through unless they are told otherwise. A larger image goes alone.
BATCH_BYTES = 3_000_000
MAX_FILE_BYTES = 512 * 1024**2
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds
OUTPUTS = ("probabilities", "label", "confidence", "reject")


@dataclass(frozen=True)
class Answer:
    """What a server says of one image.

    Args:
        image: its path.
        label: the likeliest class; `None` where the image cannot be read or decoded.
        confidence: the calibrated probability of `label`.
        reject: whether the image looks unlike the training images, or cannot be decoded; `None` where it was
            not asked about.
        probabilities: calibrated, in the order of the classes in the model's `labels.txt`.
        error: why the image has no label, or `None`.
    """

    image: str
    label: str | None = None
    confidence: float | None = None
    reject: bool | None = None
    probabilities: tuple[float, ...] = ()
    error: str | None = None


def request(
    address: str,
    images: Sequence[str | Path],
    *,
    name: str = "vit",
    version: int | None = None,
    protocol: str | None = None,
    timeout: float = 30.0,
    retries: int = 3,
    batch_size: int = 32,
) -> list[Answer]:
    """Classifies image files with a model on a server.

    Args:
        address: `"HOST:PORT"`.
        images: paths of image files. They are sent as they are: no image is decoded here.
        name: the name the model is served under.
        version: of the model; `None` for the latest.
        protocol: `"grpc"`, which needs the extra `serving`, or `"rest"`; `None` takes gRPC at port 8500,
            else REST.
        timeout: seconds to wait for the answer to one request.
        retries: how often a request is made again after a failure that may pass: nobody listens, no answer in
            time, or the server says that it is busy. The waits between double from half a second up, with
            jitter.
        batch_size: images a request; fewer where their files are large.

    Returns:
        One `Answer` an image, in order. An image that cannot be read or decoded has an `error` and spoils no
        other.

    Raises:
        InputError: an argument cannot be used.
        ServerError: the server cannot be reached, refuses the request or makes no sense; its `answers` are
            those to the images before.
    """
    check_range("batch_size", batch_size, 1, None)
    server = _server(address, name, version, protocol, timeout, retries)
    answers: list[Answer] = []
    for batch in _batches([Path(image) for image in images], batch_size):
        try:
            answers += _answers(server, batch, retries)
        except ServerError as error:
            error.answers = answers
            raise
    return answers


def signatures(
    address: str,
    *,
    name: str = "vit",
    version: int | None = None,
    protocol: str | None = None,
    timeout: float = 30.0,
    retries: int = 3,
) -> dict[str, dict[str, dict[str, str]]]:
    """What can be asked of a model on a server.

    Args:
        address, name, version, protocol, timeout, retries: as in `request`.

    Returns:
        Signature -> `"inputs"` and `"outputs"` -> tensor name -> type and shape, such as `"float32 (?, 6)"`.

    Raises:
        InputError, ServerError: as in `request`.
    """
    server = _server(address, name, version, protocol, timeout, retries)
    found = _patiently(server.signature_def, retries)
    try:
        return {
            signature: {
                side: {
                    tensor: _type_and_shape(info) for tensor, info in sorted(definition.get(side, {}).items())
                }
                for side in ("inputs", "outputs")
            }
            for signature, definition in sorted(found.items())
            if not signature.startswith("__")  # those of SavedModel itself
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ServerError(f"{address} describes its model in no way that TensorFlow Serving does.") from error


def signature_table(found: dict[str, dict[str, dict[str, str]]]) -> str:
    """Signatures for people to read: a line a tensor."""
    lines = []
    for signature, sides in found.items():
        lines.append(signature)
        for side, tensors in sides.items():
            lines += [f"  {side.removesuffix('s'):6}  {name}  {kind}" for name, kind in tensors.items()]
    return "\n".join(lines)


def _type_and_shape(info) -> str:
    # As JSON a message leaves out what is 0 or empty.
    shape = info.get("tensor_shape", {})
    sizes = [int(dim.get("size", 0)) for dim in shape.get("dim", ())]
    kind = {"float": "float32"}.get(word := info["dtype"].removeprefix("DT_").lower(), word)
    return (
        kind
        if shape.get("unknown_rank")
        else f"{kind} ({', '.join('?' if size < 0 else str(size) for size in sizes)})"
    )


def to_json(answers: Sequence[Answer], class_names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Answers as JSON has them.

    Args:
        answers: what `request` returns.
        class_names: of the model, in its order; with them the probabilities are named.

    Raises:
        InputError: the names are not those of the model.
    """
    found = [asdict(answer) for answer in answers]
    if class_names is None:
        return found
    for answer, item in zip(answers, found, strict=True):
        if answer.label is not None:
            item["probabilities"] = _by_class(answer, class_names)
    return found


def read_labels(path: Path) -> list[str]:
    """The class names in a `labels.txt`, one a line."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise InputError(
            f"{path} cannot be read ({reason}): give the labels.txt from assets.extra of the model."
        ) from error


def _by_class(answer, class_names):
    of_model = len(class_names) == len(answer.probabilities)
    named = dict(zip(class_names, answer.probabilities, strict=False))
    if not of_model or named.get(answer.label) != max(answer.probabilities):
        raise InputError(
            f"The labels are not those of the model, which has {len(answer.probabilities)} classes and calls "
            f"{answer.image} {answer.label!r}: give the labels.txt from assets.extra of the served version."
        )
    return named


def table(answers: Sequence[Answer]) -> str:
    """Answers for people to read: a line an image."""
    rows = [
        (
            answer.image,
            answer.label or "-",
            "-" if answer.confidence is None else f"{answer.confidence:.1%}",
            {None: "-", False: "no", True: "yes"}[answer.reject],
            answer.error or "",
        )
        for answer in answers
    ]
    rows = [("image", "label", "confidence", "reject", ""), *rows]
    image, label = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines = (
        f"{row[0]:{image}}  {row[1]:{label}}  {row[2]:>10}  {row[3]:6}  {row[4]}".rstrip() for row in rows
    )
    return "\n".join(lines)


def protocol_of(address: str, protocol: str | None = None) -> str:
    """`"grpc"` or `"rest"`: the one that was chosen, or the one of the port.

    Raises:
        InputError: the address is none, or there is no such protocol.
    """
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):(\d{1,5})", address, re.ASCII)
    if not found or not 0 < int(found[2]) < 65536:
        raise InputError(
            f"Give the server as HOST:PORT, such as localhost:8501 ({PORTS}). Received: {address!r}"
        )
    if protocol is None:
        return "grpc" if int(found[2]) == GRPC_PORT else "rest"
    check_choice("protocol", protocol, PROTOCOLS)
    return protocol


def _server(address, name, version, protocol, timeout, retries) -> Rest | Grpc:
    protocol = protocol_of(address, protocol)
    if not name:
        raise InputError("The name of the model is empty: give the one it is served under.")
    check_range("version", version, 0, 2**63 - 1)
    check_range("timeout", timeout, 0, 86_400, open_low=True)
    check_range("retries", retries, 0, 100)
    return PROTOCOLS[protocol](address, name, version, timeout)


@dataclass(frozen=True)
class _File:
    name: str
    content: bytes | None
    error: str | None = None


def _batches(paths, batch_size) -> Iterator[list[_File]]:
    batch: list[_File] = []
    size = 0
    for path in paths:
        file = _read(path)
        more = len(file.content or b"")
        if batch and (len(batch) == batch_size or size + more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += more
    if batch:
        yield batch


def _read(path) -> _File:
    try:
        if not path.exists():
            return _File(str(path), None, "there is no such file")
        if not path.is_file():  # reading a pipe would wait for whoever writes to it
            return _File(str(path), None, "it is no file")
        if path.stat().st_size > MAX_FILE_BYTES:
            return _File(str(path), None, f"more than {MAX_FILE_BYTES // 1024**2} MiB, too large to send")
        return _File(str(path), path.read_bytes())
    except (OSError, ValueError) as error:  # a zero byte in the name is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        return _File(str(path), None, f"cannot be read: {reason}")


def _answers(server, batch, retries) -> list[Answer]:
    contents = [file.content for file in batch if file.content is not None]
    outputs = _patiently(lambda: server.predict(contents), retries) if contents else {}
    rows = iter(_rows(outputs, len(contents), server.address) if contents else ())
    return [
        Answer(file.name, error=file.error) if file.content is None else _answer(file.name, *next(rows))
        for file in batch
    ]


def _answer(name, probabilities, label, confidence, reject) -> Answer:
    if not label:
        return Answer(name, reject=bool(reject), error="the server cannot decode it as an image")
    return Answer(name, label, confidence, bool(reject), tuple(probabilities))


def _rows(outputs, count, address) -> Iterator[tuple]:
    """The outputs image by image, once they are known to be what an exported model gives."""
    missing = [name for name in OUTPUTS if name not in outputs]
    if missing:
        raise ServerError(
            f"{address} serves no model that `keras-vit export` made: its outputs are "
            f"{', '.join(sorted(outputs)) or 'none'}, without {', '.join(missing)}."
        )
    try:
        # A float32 is written otherwise in JSON than as a double: this makes the same number of both.
        numbers = {name: np.asarray(outputs[name], np.float32) for name in OUTPUTS if name != "label"}
        labels = [_text(label) for label in outputs["label"]]
    except (TypeError, ValueError) as error:
        raise _nonsense(address, str(error)) from error
    found = {"label": (len(labels),), **{name: value.shape for name, value in numbers.items()}}
    classes = found["probabilities"][1:2]
    wanted = {name: (count, *(classes if name == "probabilities" else ())) for name in OUTPUTS}
    if found != wanted or not classes:
        raise _nonsense(address, f"{count} images were sent, the shapes of the answer are {found}")
    if not all(((value >= 0) & (value <= 1)).all() for value in numbers.values()):
        raise _nonsense(address, "its numbers are not all in 0..1")
    columns = {**{name: value.tolist() for name, value in numbers.items()}, "label": labels}
    return zip(*(columns[name] for name in OUTPUTS), strict=True)


def _text(label) -> str:
    if isinstance(label, bytes):
        return label.decode()
    if not isinstance(label, str):
        raise TypeError(f"{label!r} is no label")
    return label


def _nonsense(address, what) -> ServerError:
    return ServerError(f"{address} does not answer as a model that `keras-vit export` made: {what}.")


def _patiently(call: Callable[[], Any], retries: int) -> Any:
    """What a call returns; after a failure that may pass it is made again, up to `retries` times.

    Half of each wait is drawn: clients that one failure has stopped are not to come back all at once.
    """
    half = {"multiplier": FIRST_DELAY / 2, "max": LONGEST_DELAY / 2}
    patient = Retrying(
        stop=stop_after_attempt(retries + 1),
        wait=wait_exponential(**half) + wait_random_exponential(**half),
        retry=retry_if_exception(lambda error: isinstance(error, ServerError) and error.may_pass),
        sleep=sleep,
        reraise=True,
    )
    try:
        return patient(call)
    except ServerError as error:
        if patient.statistics["attempt_number"] > 1:
            error.add_note(f"Asked {patient.statistics['attempt_number']} times.")
        raise
