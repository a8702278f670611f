"""The command keras-vit: one file per verb, and the shell that they share."""
