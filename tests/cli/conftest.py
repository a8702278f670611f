"""`keras-vit request` is tested with a stand-in for the server."""

from tests.serving.conftest import brightness_double, double, sleeps

__all__ = ["brightness_double", "double", "sleeps"]
