"""The command keras-vit: one file per verb, and the shell that they share."""

from keras_vit.cli.main import FAILED, FINE, WRONG_USAGE, main

__all__ = ["FAILED", "FINE", "WRONG_USAGE", "main"]
