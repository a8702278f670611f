"""Paths in a checkout."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
"""Data beside the project: tests that use it are skipped, with the reason, where it is absent."""
