"""`keras-vit serve`: one process that answers as TensorFlow Serving's REST API does."""
