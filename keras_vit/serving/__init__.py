"""From a run folder to what serves it: the bundle for TF Serving, other formats, and Keras 2."""
