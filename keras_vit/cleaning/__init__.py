"""What is wrong with one's own images and labels, before or after a training."""
