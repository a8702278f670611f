"""Images on their way to the model: read, judged, cut to one size, shuffled, augmented, batched."""
