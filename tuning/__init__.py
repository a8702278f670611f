"""A checkout's own way to the search, and an example of a space of one's own; not installed."""
