"""Published weights in and out: one file per family in `families/`."""
