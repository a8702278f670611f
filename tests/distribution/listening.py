"""Joins the processes of a run, and prints on which addresses this one and its launcher listen.

    python -m tests.distribution.listening [--start]

With `--start` the process starts the others itself, as `keras-vit train --devices 2` does.
"""

import ipaddress
import os
import socket
import struct
import sys
from pathlib import Path

import keras
import numpy as np

from keras_vit.distribution import distribute
from keras_vit.process.torchrun import continue_as_torchrun

LISTEN = "0A"  # of the states of a socket in /proc/net/tcp


def listening(process: int) -> list[str]:
    """The addresses, without ports, on which a process listens (Linux)."""
    links = [os.readlink(path) for path in Path(f"/proc/{process}/fd").iterdir() if path.is_symlink()]
    own = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:[")}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == LISTEN and columns[9] in own:
                words = bytes.fromhex(columns[1].split(":")[0])
                whole = b"".join(struct.pack("!I", word) for (word,) in struct.iter_unpack("=I", words))
                address = ipaddress.ip_address(whole)
                found.append(str(getattr(address, "ipv4_mapped", None) or address))
    return found


def main(starts: bool) -> None:
    if starts:
        continue_as_torchrun("data", 2, ["-m", "tests.distribution.listening"])
    torch = keras.backend.backend() == "torch"
    with distribute("data") as distribution:
        distribution.broadcast(np.ones(3, "float32"))  # the processes connect to each other
        with socket.create_server(("127.0.0.1", 0)):  # one to be seen
            seen = listening(os.getpid())
        seen += listening(os.getppid()) if torch and "TORCHELASTIC_RUN_ID" in os.environ else []
        distribution.broadcast(np.ones(3, "float32"))  # none ends before all have looked
    sys.stdout.write(" ".join(["listens:", *seen]) + "\n")  # at once: the processes share the output
    sys.stdout.flush()


if __name__ == "__main__":
    main("--start" in sys.argv)
