"""Which requests of browsers are answered: a page of another site must neither ask nor read.

A server on loopback has no password. A page that a browser has loaded from elsewhere can send requests to
it, and, where its own name is made to point to loopback (DNS rebinding), read the answers. Browsers say in
`Host` which name they ask, and in `Origin` whose page asks; programs such as curl and the clients of
TensorFlow Serving send no `Origin`.
"""

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from keras_vit.serving.server.refusal import Refusal

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of each answer."""


class Guard:
    """Checks `Host` and `Origin`.

    Args:
        host: that the server listens on.
        names: further names that it may be asked under.
    """

    def __init__(self, host: str, names: Sequence[str] = ()):
        known = {"localhost", host, socket.gethostname(), *names}
        with_domain = socket.getfqdn() if not is_loopback(host) else "localhost"
        self._names = {name.lower().rstrip(".") for name in (*known, with_domain)}

    def check(self, host: str | None, origin: str | None) -> None:
        """Checks the headers of a request.

        Raises:
            Refusal: a browser asks under another name, or for a page of another site.
        """
        if host is not None and not self._knows(host):
            raise Refusal(
                "PERMISSION_DENIED",
                f"This server is not known as {host[:100]}: --allow-host gives it a further name",
            )
        if origin is not None and urlsplit(origin).netloc.lower() != (host or "").lower():
            raise Refusal("PERMISSION_DENIED", "This server answers no pages of other sites")

    def _knows(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        name = name.rstrip(".")
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)  # nobody can make an address point elsewhere
        except ValueError:
            return False
        return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
