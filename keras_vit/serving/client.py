"""Sends image files to TensorFlow Serving with a model that `keras-vit export` made."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from time import sleep
from typing import Annotated, Any, Literal

from pydantic import Field
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random_exponential,
)

from keras_vit.data.preprocess import TiffPages
from keras_vit.data.values import UnreadableImage
from keras_vit.errors import InputError, ServerError
from keras_vit.files import read_bytes
from keras_vit.serving.answers import Reader
from keras_vit.serving.protocols import PORTS, Grpc, Rest
from keras_vit.serving.sent import VALUES, Sent, may_be_foreign, to_send
from keras_vit.text import shown
from keras_vit.validation import Count, validated

Protocol = Literal["grpc", "rest"]
PROTOCOLS: dict[str, type[Grpc] | type[Rest]] = {"grpc": Grpc, "rest": Rest}
GRPC_PORT = 8500
# Of the image files in a request: as base64 they stay below 4 MiB, the default limit of gRPC and of many
# proxies. A larger image is sent alone.
BATCH_BYTES = 3_000_000
MAX_FILE_BYTES = 512 * 1024**2
MAX_LABELS_BYTES = 16 * 1024**2
YES_NO = {None: "-", False: "no", True: "yes"}
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds


@dataclass(frozen=True)
class Answer:
    """The answer of a server for one image.

    Args:
        image: its path.
        label: the class that the model names: the likeliest, or that of its rule; `None` if the image cannot
            be read or decoded.
        confidence: the calibrated probability of `label`.
        reject: whether the image is unlike the training images or cannot be decoded; `None` if it was not
            sent.
        probabilities: calibrated, in the order of the classes in the model's `labels.txt`.
        error: why the image has no label, or `None`.
        prediction_set: the numbers of the classes that the image may be, the likeliest first; `None` if the
            model has learned no prediction sets, or the image was not sent.
        refer: whether a person should look at the image; `None` likewise.
        labels: the names of the labels of the image, maybe none, where one may have several; otherwise
            `None`. `label` is then the likeliest one, whether the image has it or not.
        likeliest: the class with the largest probability, of a model with a rule; otherwise `None`.
    """

    image: str
    label: str | None = None
    confidence: float | None = None
    reject: bool | None = None
    probabilities: tuple[float, ...] = ()
    error: str | None = None
    prediction_set: tuple[int, ...] | None = None
    refer: bool | None = None
    labels: tuple[str, ...] | None = None
    likeliest: str | None = None


@validated
class Settings:
    """How a server is called: see `request`."""

    name: str
    version: Annotated[int, Field(ge=0, le=2**63 - 1)] | None
    protocol: Protocol | None
    timeout: Annotated[float, Field(gt=0, le=86_400)]
    retries: Annotated[int, Field(ge=0, le=100)]
    batch_size: Count = 1
    tiff_page: TiffPages | None = None

    def __post_init__(self):
        if not self.name:
            raise InputError("The name of the model is empty: give the one that it is served under.")

    def server(self, address: str) -> Rest | Grpc:
        protocol = PROTOCOLS[protocol_of(address, self.protocol)]
        return protocol(address, self.name, self.version, self.timeout)


def request(
    address: str,
    images: Sequence[str | Path],
    *,
    name: str = "vit",
    version: int | None = None,
    protocol: Protocol | None = None,
    timeout: float = 30.0,
    retries: int = 3,
    batch_size: int = 32,
    tiff_page: TiffPages | None = None,
) -> list[Answer]:
    """Classifies image files with a model on a server.

    Args:
        address: `"HOST:PORT"`.
        images: paths of image files. They are sent unchanged, but for those that no bundle decodes: TIFF,
            AVIF, DICOM and the rarer kinds of BMP are decoded here, and sent as PNG or as pixels, one by one.
        name: the name under which the model is served.
        version: of the model; `None` for the latest.
        protocol: `"grpc"`, which needs the extra `serving`, or `"rest"`; `None` takes gRPC at port 8500, else
            REST.
        timeout: seconds that one attempt of a request may take as a whole, from finding the host to the last
            byte of the answer.
        retries: how often a request is repeated after a failure that may be temporary: no server listens, no
            answer in time, or the server is busy. The waits double from half a second up, with jitter.
        batch_size: images per request; fewer if their files are large.
        tiff_page: which page of a TIFF is read, from 1, or `"channels"`, as the run was trained with.

    Returns:
        One `Answer` per image, in order. An image that cannot be read or decoded gets an `error` and does not
        affect the others.

    Raises:
        InputError: an argument cannot be used.
        ServerError: the server cannot be reached, refuses or redirects the request, or gives an answer that
            cannot be used or contradicts itself: see `keras_vit.serving.answers`. The error's `answers` are
            those for the images before.
    """
    settings = Settings(name, version, protocol, timeout, retries, batch_size, tiff_page)
    server = settings.server(address)
    reader, answers = Reader(address), list[Answer]()
    wanted = _Wanted(server, retries, tiff_page)
    for batch in _batches([Path(image) for image in images], batch_size, wanted):
        try:
            answers += _answers(server, reader, batch, retries)
        except ServerError as error:
            error.answers = answers
            raise
    return answers


def signatures(
    address: str,
    *,
    name: str = "vit",
    version: int | None = None,
    protocol: Protocol | None = None,
    timeout: float = 30.0,
    retries: int = 3,
) -> dict[str, dict[str, dict[str, str]]]:
    """The signatures of a model on a server.

    Args:
        address: as in `request`, and so are the other arguments.
        name: of the model.
        version: of the model.
        protocol: `"grpc"` or `"rest"`.
        timeout: seconds.
        retries: after a temporary failure.

    Returns:
        Signature -> `"inputs"` and `"outputs"` -> tensor name -> type and shape, such as `"float32 (?, 6)"`.

    Raises:
        InputError, ServerError: as in `request`.
    """
    server = Settings(name, version, protocol, timeout, retries).server(address)
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
        raise ServerError(f"{address} does not describe its model as TensorFlow Serving does.") from error


def signature_table(found: dict[str, dict[str, dict[str, str]]]) -> str:
    """Signatures as text, one line per tensor."""
    lines = []
    for signature, sides in found.items():
        lines.append(signature)
        for side, tensors in sides.items():
            lines += [f"  {side.removesuffix('s'):6}  {name}  {kind}" for name, kind in tensors.items()]
    return "\n".join(map(shown, lines))


def _type_and_shape(info: dict[str, Any]) -> str:
    # The JSON form of a message omits fields that are 0 or empty.
    shape = info.get("tensor_shape", {})
    sizes = [int(dim.get("size", 0)) for dim in shape.get("dim", ())]
    kind = {"float": "float32"}.get(word := info["dtype"].removeprefix("DT_").lower(), word)
    return (
        kind
        if shape.get("unknown_rank")
        else f"{kind} ({', '.join('?' if size < 0 else str(size) for size in sizes)})"
    )


def to_json(answers: Sequence[Answer], class_names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Answers as dicts for JSON.

    Args:
        answers: what `request` returns.
        class_names: of the model, in its order; with them, probabilities and prediction sets are given by
            name.

    Raises:
        InputError: the names are not those of the model.
    """
    found = [asdict(answer) for answer in answers]
    if class_names is None:
        return found
    for answer, item in zip(answers, found, strict=True):
        if answer.label is not None:
            item["probabilities"] = _by_class(answer, class_names)
        if answer.prediction_set:
            item["prediction_set"] = [class_names[i] for i in answer.prediction_set]
    return found


def read_labels(path: Path) -> list[str]:
    """The class names in a `labels.txt`, one per line."""
    try:
        return read_bytes(path, MAX_LABELS_BYTES).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(
            f"{path} cannot be read ({reason}): give the labels.txt from assets.extra of the model."
        ) from error


def _by_class(answer: Answer, class_names: Sequence[str]) -> dict[str, float]:
    of_model = len(class_names) == len(answer.probabilities)
    named = dict(zip(class_names, answer.probabilities, strict=False))
    if not of_model or named.get(answer.likeliest or answer.label or "") != max(answer.probabilities):
        raise InputError(
            f"The labels are not those of the model, which has {len(answer.probabilities)} classes and calls "
            f"{answer.image} {answer.label!r}: give the labels.txt from assets.extra of the served version."
        )
    return named


def table(answers: Sequence[Answer]) -> str:
    """Answers as text, one line per image."""
    several = any(answer.labels is not None for answer in answers)
    rows = [
        (
            answer.image,
            (", ".join(answer.labels or ()) if several else answer.label) or "-",
            "-" if answer.confidence is None else f"{answer.confidence:.1%}",
            YES_NO[answer.reject],
            YES_NO[answer.refer],
            answer.error or "",
        )
        for answer in answers
    ]
    texts = [
        [shown(cell) for cell in row]
        for row in [("image", "labels" if several else "label", "confidence", "reject", "refer", ""), *rows]
    ]
    if several:  # the confidence is that of the likeliest label, which the image may not have
        texts = [[row[0], row[1], "", *row[3:]] for row in texts]
    if all(answer.refer is None for answer in answers):  # a model without prediction sets
        texts = [[*row[:4], *row[5:]] for row in texts]
    image, label = (max(len(row[i]) for row in texts) for i in (0, 1))
    lines = (
        "  ".join(
            (
                f"{row[0]:{image}}",
                f"{row[1]:{label}}",
                *([] if several else [f"{row[2]:>10}"]),
                *(f"{c:6}" for c in row[3:-1]),
                row[-1],
            )
        ).rstrip()
        for row in texts
    )
    return "\n".join(lines)


def protocol_of(address: str, protocol: Protocol | None = None) -> Protocol:
    """`"grpc"` or `"rest"`: the given protocol, or that of the port.

    Raises:
        InputError: the address is not HOST:PORT.
    """
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):(\d{1,5})", address, re.ASCII)
    if not found or not 0 < int(found[2]) < 65536:
        raise InputError(
            f"Give the server as HOST:PORT, such as localhost:8501 ({PORTS}). Received: {address!r}"
        )
    if protocol is None:
        return "grpc" if int(found[2]) == GRPC_PORT else "rest"
    return protocol


@dataclass(frozen=True)
class _File:
    name: str
    content: bytes | Sent | None
    error: str | None = None


class _Wanted:
    """What a model takes, by its signatures: asked of the server when a file has to be decoded here."""

    def __init__(self, server: Rest | Grpc, retries: int, tiff_page: TiffPages | None) -> None:
        self.server, self.retries, self.tiff_page = server, retries, tiff_page

    @cached_property
    def _signatures(self) -> dict[str, Any]:
        return _patiently(self.server.signature_def, self.retries)

    def file(self, name: str, content: bytes) -> _File:
        """A file as it is sent."""
        if not may_be_foreign(content):
            return _File(name, content)
        try:
            shape = self._signatures["images"]["inputs"]["images"]["tensor_shape"]["dim"]
            channels = int(shape[-1].get("size", -1))
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            return _File(name, content)  # the server has another kind of model, and the last word
        try:
            sent = to_send(
                content, channels if channels > 0 else None, VALUES in self._signatures, self.tiff_page
            )
        except (UnreadableImage, InputError) as reason:
            return _File(name, None, str(reason))
        return _File(name, sent)


def _batches(paths: Sequence[Path], batch_size: int, wanted: _Wanted) -> Iterator[list[_File]]:
    batch: list[_File] = []
    size = 0
    for path in paths:
        file = _read(path)
        if isinstance(file.content, bytes):
            file = wanted.file(file.name, file.content)
        if isinstance(file.content, Sent):
            if batch:
                yield batch
            yield [file]
            batch, size = [], 0
            continue
        more = len(file.content or b"")
        if batch and (len(batch) == batch_size or size + more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += more
    if batch:
        yield batch


def _read(path: Path) -> _File:
    try:
        if not path.exists():
            return _File(str(path), None, "there is no such file")
        if not path.is_file():  # reading a pipe would wait for a writer
            return _File(str(path), None, "it is not a file")
        if path.stat().st_size > MAX_FILE_BYTES:
            return _File(str(path), None, f"more than {MAX_FILE_BYTES // 1024**2} MiB, too large to send")
        return _File(str(path), path.read_bytes())
    except (OSError, ValueError) as error:  # a zero byte in the name is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        return _File(str(path), None, f"cannot be read: {reason}")


def _answers(server: Rest | Grpc, reader: Reader, batch: list[_File], retries: int) -> list[Answer]:
    contents = [file.content for file in batch if file.content is not None]
    outputs = _patiently(lambda: _ask(server, contents), retries) if contents else {}
    rows = iter(reader.rows(outputs, len(contents)) if contents else ())
    return [
        Answer(file.name, error=file.error) if file.content is None else _answer(file.name, *next(rows))
        for file in batch
    ]


def _ask(server: Rest | Grpc, contents: list[Any]) -> dict[str, Any]:
    if isinstance(contents[0], Sent):  # which is alone
        return server.predict_arrays(contents[0].signature, contents[0].inputs)
    return server.predict(contents)


def _answer(
    name: str,
    probabilities: list[float],
    label: str,
    confidence: float,
    reject: float,
    members: list[float] | None,
    refer: float | None,
    likeliest: str | None,
    names: list[str] | None,
) -> Answer:
    sets: dict[str, Any] = {}
    if names is not None and label:
        sets["labels"] = tuple(names)
    if members is not None:
        kept = [i for i, member in enumerate(members) if member]
        sets["prediction_set"] = tuple(sorted(kept, key=lambda i: -probabilities[i]))
        sets["refer"] = bool(refer)
    if not label:
        return Answer(name, reject=bool(reject), error="the server cannot decode it as an image", **sets)
    if likeliest is not None:
        sets["likeliest"] = likeliest
    return Answer(name, label, confidence, bool(reject), tuple(probabilities), **sets)


def _patiently(call: Callable[[], Any], retries: int) -> Any:
    """What a call returns; after a failure that may be temporary it is repeated, up to `retries` times.

    Half of each wait is random, so that clients that the same failure has stopped do not return all at once.
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
            error.add_note(f"Tried {patient.statistics['attempt_number']} times.")
        raise
