"""`keras-vit serve` in a thread of the tests."""

import contextlib
import threading
from dataclasses import dataclass
from typing import Any

from keras_vit.serving.server.serve import Server


@dataclass
class Started:
    """A server that answers.

    Args:
        address: HOST:PORT.
        server: what answers.
    """

    address: str
    server: Any


@contextlib.contextmanager
def serving(path, **options):
    """Serves a run or a bundle at a free port of loopback.

    Args:
        path: of `keras_vit.serving.server.serve.serve`, and so are the other arguments.
    """
    is_ready = threading.Event()
    with Server(path, port=0, **options) as server:
        thread = threading.Thread(target=server.answer, args=(is_ready.set,), name="listener")
        thread.start()
        try:
            assert is_ready.wait(300)
            yield Started(server.address.removeprefix("http://").rstrip("/"), server)
        finally:
            server.stop()
            thread.join()
