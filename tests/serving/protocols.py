"""Sends requests to the stand-in for TensorFlow Serving, over either protocol."""

import socket

import pytest

from keras_vit.serving import client

both = pytest.mark.parametrize("protocol", ["grpc", "rest"])
BRIGHTNESS = (3, 100, 140, 200, 255)  # of the images in the fixture `bright_files`


def ask(double, protocol, images, **options):
    return client.request(getattr(double, protocol), images, protocol=protocol, **options)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
