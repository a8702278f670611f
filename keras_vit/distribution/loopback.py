"""What the processes of one machine listen on: loopback, which no other machine can reach."""

import ipaddress
import os
import socket

HOST = "127.0.0.1"
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Where gloo and NCCL read which network they use. By default they take that of the machine's name."""


def is_loopback(address: str) -> bool:
    """Whether a `host:port` is one that only processes of this machine can reach."""
    host = address.rsplit(":", 1)[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def keep_collectives_on_loopback() -> None:
    """Makes gloo and NCCL listen on loopback alone; variables that are set already stay."""
    for _, name in socket.if_nameindex():
        if name.startswith("lo"):
            for variable in INTERFACES:
                os.environ.setdefault(variable, name)
            return
