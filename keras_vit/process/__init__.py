"""Processes, and what is recorded of the one that runs."""
