"""Listens on a port: sockets, slow clients, and the end at Ctrl-C or SIGTERM."""

import asyncio
import contextlib
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from keras_vit.errors import InputError

KEEP_ALIVE = 30  # seconds that a connection stays open without a request
MOST_HEADER = 32 * 1024  # bytes
FILES = 200  # that the process has open beside its connections
MOST_CONNECTIONS = 512


def bind(host: str, port: int) -> socket.socket:
    """A socket at a port, which does not listen yet: until then, connections are refused.

    Linux lets a second socket bind a port with SO_REUSEADDR only as long as no other one listens on it.

    Args:
        host: a name or an address.
        port: 0 takes a free one.

    Raises:
        InputError: the port is taken or not allowed, or the host is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a name"
        raise InputError(
            f"--host {host} is not known ({reason}): give an address of this machine."
        ) from error
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        return found
    except OSError as error:
        found.close()
        raise _not_usable(host, port, error) from error


def _not_usable(host: str, port: int, error: OSError) -> InputError:
    return InputError(
        f"Port {port} of {host} cannot be used ({error.strerror}): give another --port, or --port 0 for a "
        "free one."
    )


def address_of(bound: socket.socket, host: str) -> str:
    """The address of a bound socket as a browser takes it."""
    port = bound.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"


class Listener(uvicorn.Server):
    """Answers until `should_exit` is set, or SIGINT or SIGTERM comes, and then what was asked before.

    Args:
        app: an ASGI application.
        bound: of `bind`.
        timeout: seconds that the header of a request, and the reading of an answer, may take; and, at the
            end, how long answers are waited for.
    """

    def __init__(self, app: Any, bound: socket.socket, timeout: float):
        config = uvicorn.Config(
            app,
            http=_protocol(timeout),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(timeout) + 1,
            h11_max_incomplete_event_size=MOST_HEADER,
            backlog=MOST_CONNECTIONS,
        )
        super().__init__(config)
        self._bound = bound
        self._ready: Callable[[], None] | None = None

    def answer(self, ready: Callable[[], None]) -> None:
        """Answers until the end.

        Args:
            ready: called when it listens.
        """
        self._ready = ready
        asyncio.run(self.serve(sockets=[self._bound]))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:  # another process has begun to listen since `bind`
            host, port = self._bound.getsockname()[:2]
            raise _not_usable(host, port, error) from error
        if self._ready is not None:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises the signal again at the end, which would end the process before its last words.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _protocol(timeout: float) -> type[H11Protocol]:
    """HTTP/1.1 with what uvicorn has no limit for: slow headers, answers that nobody reads, connections."""
    most = _most_connections()

    class Protocol(H11Protocol):
        _header: asyncio.TimerHandle | None = None
        _reading: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                self._refuse(503, "The server has as many connections as it can: try again later")
                return
            self._header = self.loop.call_later(timeout, transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._header is None and self._is_idle():
                self._header = self.loop.call_later(timeout, self.transport.abort)
            super().data_received(data)
            if self._header is not None and not self._is_idle():
                self._header.cancel()
                self._header = None

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reading = self.loop.call_later(timeout, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._reading is not None:
                self._reading.cancel()
                self._reading = None

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, f"Malformed request: {msg}")

        def _is_idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _stop(self) -> None:
            for timer in (self._header, self._reading):
                if timer is not None:
                    timer.cancel()

        def _refuse(self, status: int, text: str) -> None:
            body = json.dumps({"error": text}).encode()
            reason = {400: "Bad Request", 503: "Service Unavailable"}[status]
            head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            more = "Retry-After: 1\r\n" if status == 503 else ""
            self.transport.write(f"{head}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            self.transport.close()

    return Protocol


def _most_connections() -> int:
    """Fewer than the process may have open files: where there are none left, asyncio pauses for a second."""
    try:
        import resource
    except ImportError:  # Windows
        return MOST_CONNECTIONS
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(16, min(MOST_CONNECTIONS, limit - FILES))
