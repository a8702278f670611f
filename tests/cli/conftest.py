"""`keras-vit request` is tested with the stand-in for the server."""

from tests.serving.conftest import brightness_double, double, sleeps

__all__ = ["brightness_double", "double", "sleeps"]
