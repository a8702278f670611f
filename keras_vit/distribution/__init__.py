"""Training on several devices and machines, with one interface for all backends.

`distribute()` selects the devices. What the model does on them is in `synchronised.py`, and what each backend
does is in its own file.
"""

from keras_vit.distribution.ambient import current_distribution
from keras_vit.distribution.engine import Distribution, ProcessShare, distribution_of
from keras_vit.distribution.selection import distribute

__all__ = ["Distribution", "ProcessShare", "current_distribution", "distribute", "distribution_of"]
