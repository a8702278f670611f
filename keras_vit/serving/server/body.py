"""The bodies of requests, as far as they are read: in size, in time, and all of them together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from keras_vit.serving.server.refusal import Refusal

MAX_BODY = 32 * 1024**2
"""Bytes of one body: 24 MB of image files as base64."""
TOGETHER = 256 * 1024**2
"""Bytes of all bodies that are read or wait for their answer."""
DISCARDED = 4 * MAX_BODY
"""Bytes of a body that is too large which are read and dropped, so that its client reads the refusal."""
DISCARD_SECONDS = 5.0


class Budget:
    """The bytes that all bodies take together.

    Args:
        seconds: that a body may take to arrive.
    """

    def __init__(self, seconds: float):
        self.seconds, self._taken = seconds, 0

    @contextlib.asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, which counts as long as the block lasts.

        Raises:
            Refusal: it is too large or too slow, or there is no room for it.
        """
        taken = 0
        try:
            claimed = _claimed(request)
            if claimed > MAX_BODY:
                if "expect" not in request.headers:
                    await _discard(request)
                raise too_large()
            self._check(claimed)
            # A body of a known size takes its room at once: two that do not fit together must not both begin.
            taken = claimed
            self._taken += claimed
            parts, size = [], 0
            try:
                async with asyncio.timeout(self.seconds):
                    async for part in request.stream():
                        size += len(part)
                        if size > MAX_BODY:
                            raise too_large()
                        if size > taken:
                            self._check(size - taken)
                            self._taken += size - taken
                            taken = size
                        parts.append(part)
            except TimeoutError:
                raise Refusal("TIMEOUT", f"The body did not arrive within {self.seconds:g} s") from None
            except ClientDisconnect:
                raise Refusal("TIMEOUT", "The client has gone") from None
            content = b"".join(parts)
            parts.clear()
            yield content
        finally:
            self._taken -= taken

    def _check(self, more: int) -> None:
        if self._taken + more > TOGETHER:
            raise Refusal(
                "UNAVAILABLE", "The server holds as many requests as it has memory for: try again later"
            )


def too_large() -> Refusal:
    """The refusal of a body that is too large."""
    return Refusal(
        "TOO_LARGE",
        f"The body of a request has at most {MAX_BODY // 1024**2} MiB: send fewer images at a time.",
    )


def _claimed(request: Request) -> int:
    text = request.headers.get("content-length", "0")
    return int(text) if text.isdecimal() and len(text) < 16 else 0  # h11 has refused what is not a number


async def _discard(request: Request) -> None:
    """Reads a part of a body: a connection that is closed with unread bytes loses the answer."""
    size = 0
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DISCARD_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > DISCARDED:
                    return
