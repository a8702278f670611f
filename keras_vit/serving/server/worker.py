"""The thread that runs the model: it makes batches of the requests that wait.

One thread has the model, because the backends are quickest so, and a batch of many small requests costs
little more than one of them. Its queue is bounded: what does not fit in it is refused at once.
"""

import io
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vit.errors import first_line
from keras_vit.serving.server.pixels import pixels_of
from keras_vit.serving.server.refusal import Refusal, invalid
from keras_vit.serving.server.served import DEFAULT, FILES, Input, Served
from keras_vit.serving.server_files import BATCH_SIZES, WAIT_MICROSECONDS
from keras_vit.text import say

MOST = BATCH_SIZES[-1]
MOST_WAITING = 2048
"""Images that wait for the model. What they hold in memory is limited by `body.Budget`."""
LARGE_PIXELS = 2**22
"""Of an image that is decoded alone: the graph decodes four at once, of 24 bytes for each pixel."""
SMALL = 32  # pixels per side of the image that the model is warmed up with
FULL = "The batch scheduling queue to which this task was submitted is full: try again later"


@dataclass
class Job:
    """One request for the model.

    Args:
        signature: which is called.
        inputs: arrays by name.
        rows: how many images they hold; `None` if they have no common number, so that the job is run alone.
        call: a function of no arguments that is called instead.
        found: the outputs, or why there are none.
    """

    signature: str
    inputs: Mapping[str, np.ndarray]
    rows: int | None
    call: Callable[[], Any] | None = None
    found: Future = field(default_factory=Future)

    def key(self) -> tuple | None:
        """What jobs that make a batch together have in common; `None` for a job that is run alone."""
        if self.call is not None or self.rows is None:
            return None
        shapes = tuple((name, values.shape[1:]) for name, values in sorted(self.inputs.items()))
        return self.signature, shapes


class Worker:
    """Runs a model in a thread of its own.

    Args:
        served: the model.
    """

    def __init__(self, served: Served):
        self.served = served
        self._jobs: deque[Job] = deque()
        self._waiting = 0  # images
        self._ends = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.answered = 0  # images

    def start(self, more: Callable[[], Any] | None = None) -> None:
        """Starts the thread, and answers once for each size of a batch: nothing is compiled under load.

        Args:
            more: called in the thread after that.
        """
        self._thread.start()
        for call in (self._warm_up, more):
            if call is not None:
                self.submit_call(call).result()

    def submit(self, signature: str, inputs: Mapping[str, np.ndarray]) -> Future:
        """The future outputs of a signature by name.

        Raises:
            Refusal: too many images wait.
        """
        return self._put(Job(signature, inputs, self._rows(signature, inputs)))

    def submit_call(self, call: Callable[[], Any]) -> Future:
        """The future result of a function that uses the model.

        Raises:
            Refusal: too many images wait.
        """
        return self._put(Job("", {}, None, call))

    def end(self, seconds: float) -> None:
        """Lets the thread end after the jobs that wait, and waits so long for it."""
        with self._change:
            self._ends = True
            self._change.notify()
        self._thread.join(seconds)

    def _put(self, job: Job) -> Future:
        with self._change:
            if self._jobs and self._waiting + (job.rows or 1) > MOST_WAITING:
                raise Refusal("UNAVAILABLE", FULL)
            self._jobs.append(job)
            self._waiting += job.rows or 1
            self._change.notify()
        return job.found

    def _rows(self, signature: str, inputs: Mapping[str, np.ndarray]) -> int | None:
        """How many rows the inputs have, if each input and output of the signature has one per image."""
        sides = self.served.inputs(signature), self.served.outputs(signature)
        sized = [one.shape and one.shape[0] is None for side in sides for one in side.values()]
        counts = {len(values) if values.ndim else None for values in inputs.values()}
        return counts.pop() if all(sized) and len(counts) == 1 else None

    def _run(self) -> None:
        while True:
            jobs = self._next()
            if not jobs:
                return
            # A job whose client has given up is not worked on.
            jobs = [job for job in jobs if job.found.set_running_or_notify_cancel()]
            if jobs:
                self._answer(jobs)
            del jobs  # what they hold is free while the thread waits

    def _next(self) -> list[Job]:
        """The jobs of the next batch; none at the end."""
        with self._change:
            self._change.wait_for(lambda: self._jobs or self._ends)
            if not self._jobs:
                return []
            jobs = [self._take(0)]
            key, rows = jobs[0].key(), jobs[0].rows or 0
            if key is None:
                return jobs
            until = time.monotonic() + WAIT_MICROSECONDS / 1e6
            while rows < MOST and not self._ends:
                at = next((i for i, job in enumerate(self._jobs) if job.key() == key), None)
                if at is not None and rows + (self._jobs[at].rows or 0) <= MOST:
                    jobs.append(self._take(at))
                    rows += jobs[-1].rows or 0
                elif at is not None or not self._change.wait(until - time.monotonic()):
                    break
            return jobs

    def _take(self, at: int) -> Job:
        job = self._jobs[at]
        del self._jobs[at]
        self._waiting -= job.rows or 1
        return job

    def _answer(self, jobs: Sequence[Job]) -> None:
        try:
            found = self._outputs(jobs)
        except Exception as error:
            if len(jobs) > 1:  # one of them may be at fault
                for job in jobs:
                    self._answer([job])
            else:
                jobs[0].found.set_exception(_refusal(error))
            return
        for job, outputs in zip(jobs, found, strict=True):
            job.found.set_result(outputs)

    def _outputs(self, jobs: Sequence[Job]) -> list[Any]:
        first = jobs[0]
        if first.call is not None:
            return [first.call()]
        if first.rows is None:
            return [self.served.call(first.signature, first.inputs)]
        inputs = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in first.inputs}
        outputs = self._in_parts(first.signature, inputs)
        self.answered += sum(job.rows or 0 for job in jobs)
        ends = np.cumsum([job.rows for job in jobs])
        return [
            {name: values[end - (job.rows or 0) : end] for name, values in outputs.items()}
            for job, end in zip(jobs, ends, strict=True)
        ]

    def _in_parts(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of as many images as there are, of at most `MOST` at a time; large ones alone."""
        count = len(next(iter(inputs.values())))
        large = (
            [pixels_of(file) > LARGE_PIXELS for file in inputs[FILES]] if FILES in inputs else [False] * count
        )
        parts, start = [], 0
        for end in range(1, count + 1):
            if end == count or end - start == MOST or large[end - 1] or large[end]:
                part = {name: values[start:end] for name, values in inputs.items()}
                parts.append(self.served.call(signature, part))
                start = end
        if not parts:
            return self.served.call(signature, inputs)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _warm_up(self) -> None:
        """Answers once for each size of a batch and each signature: nothing is compiled under load."""
        if not self.served.takes_files:
            return
        for signature in self.served.functions:
            inputs = self.served.inputs(signature)
            for size in BATCH_SIZES if FILES in inputs else BATCH_SIZES[:2]:
                self.served.call(signature, {name: _example(one, size) for name, one in inputs.items()})
        self.served.call(DEFAULT, {FILES: np.array([b""], object)})  # what is no plain file has its own graph


def _example(wanted: Input, count: int) -> np.ndarray:
    """A batch for an input of an exported model."""
    if wanted.dtype == tf.string:
        return np.array([_small_png()] * count, object)
    sizes = [SMALL if size is None else size for size in (wanted.shape or ())[1:]]
    if sizes and wanted.shape and wanted.shape[-1] is None:
        sizes[-1] = 3
    return np.zeros((count, *sizes), wanted.dtype.as_numpy_dtype)


def _small_png() -> bytes:
    from PIL import Image

    written = io.BytesIO()
    Image.new("L", (SMALL, SMALL)).save(written, "PNG")
    return written.getvalue()


def _refusal(error: Exception) -> Exception:
    """What the client is told."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, tf.errors.InvalidArgumentError):
        return invalid(error.message.split("\n\t [[")[0].splitlines()[-1])  # the others say where
    if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
        return Refusal(
            "RESOURCE_EXHAUSTED", "not enough memory for this request: send fewer or smaller images"
        )
    say(f"serve: {type(error).__name__}: {first_line(error)}")
    return Refusal("INTERNAL", "the model failed; the server's output says why")
