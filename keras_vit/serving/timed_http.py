"""HTTP with one deadline for the whole of a request, and without redirects: `urllib` has neither."""

import http.client
import io
import queue
import socket
import threading
import time
import urllib.request


class Deadline:
    """A moment after which nothing more is waited for.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float):
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left.

        Raises:
            TimeoutError: none are.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class Unfinished(TimeoutError):
    """The server began to answer and did not finish in time."""


class _TimedReader(io.RawIOBase):
    """What a server sends. A plain file of a socket waits anew for each byte."""

    def __init__(self, connected: socket.socket, deadline: Deadline):
        self._file = connected.makefile("rb", buffering=0)
        self._socket, self._deadline = connected, deadline
        self._has_begun = False

    def readable(self):
        return True

    def readinto(self, buffer):
        try:
            self._socket.settimeout(self._deadline.left())
            count = self._file.readinto(buffer)
        except TimeoutError as error:
            raise (Unfinished if self._has_begun else TimeoutError)("timed out") from error
        self._has_begun = True
        return count

    def close(self):
        self._file.close()
        super().close()


class _TimedSocket:
    """As much of a socket as `http.client` uses."""

    def __init__(self, connected: socket.socket, deadline: Deadline):
        self._socket, self._deadline = connected, deadline
        self.close = connected.close

    def sendall(self, content):
        self._socket.settimeout(self._deadline.left())
        self._socket.sendall(content)

    def makefile(self, mode):
        return io.BufferedReader(_TimedReader(self._socket, self._deadline))


class _TimedConnection(http.client.HTTPConnection):
    """A connection whose `timeout` counts from here to the last byte of the answer."""

    def connect(self):
        deadline = Deadline(self.timeout)  # type: ignore[arg-type]  # `open_url` always has one
        self.sock = _TimedSocket(_connect(self.host, self.port, deadline), deadline)


class _TimedHandler(urllib.request.HTTPHandler):
    def http_open(self, request):
        return self.do_open(_TimedConnection, request)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to the caller, as errors: `urllib` would make a GET of a POST."""

    def http_error_302(self, req, fp, code, msg, headers):
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def open_url(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
    """Sends a request, through the proxy that the environment names, if it names one.

    Args:
        request: an http:// request.
        timeout: seconds for all of it: finding the host, connecting, sending, and receiving what the caller
            reads.

    Raises:
        urllib.error.HTTPError: any other answer than success, redirects too.
        OSError: no answer; `TimeoutError`, also inside of an `urllib.error.URLError`, if it took too long.
        http.client.HTTPException: the answer is not HTTP.
    """
    return urllib.request.build_opener(_TimedHandler, _NoRedirect).open(request, timeout=timeout)


def _connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Connects to the first address of a host that answers; as `socket.create_connection`, but in time."""
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in _addresses(host, port, deadline):
        connected = socket.socket(family, kind, protocol)
        try:
            connected.settimeout(deadline.left())
            connected.connect(address)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connected
        except OSError as error:
            connected.close()
            failure = error
    raise failure


def _addresses(host: str, port: int, deadline: Deadline) -> list:
    """The addresses of a host. The system's resolver takes no timeout, so it is asked beside this thread."""
    found: queue.SimpleQueue = queue.SimpleQueue()

    def resolve():
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.put(error)

    thread = threading.Thread(target=resolve, daemon=True, name="resolver")
    thread.start()
    try:
        answer = found.get(timeout=deadline.left())
    except queue.Empty:
        raise TimeoutError("timed out") from None
    thread.join()
    if isinstance(answer, UnicodeError):
        raise OSError(f"{host} is not the name of a host") from answer
    if isinstance(answer, OSError):
        raise answer
    return answer
