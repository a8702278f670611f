"""One door to training on several devices and machines, whatever the backend.

`distribute()` opens it. What a model does there is in `model.py`, what a backend does in its own file.
"""

from keras_vit.distribution.engine import (
    Distribution,
    ProcessShare,
    current_distribution,
    distribution_of,
)
from keras_vit.distribution.selection import distribute

__all__ = ["Distribution", "ProcessShare", "current_distribution", "distribute", "distribution_of"]
