"""The search from a checkout, and an example of a search space of your own; not installed."""
