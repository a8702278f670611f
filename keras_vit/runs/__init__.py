"""A finished run: its folder, and what it answers."""
