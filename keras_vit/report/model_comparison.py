"""The page of a comparison of models."""

from collections.abc import Mapping
from typing import Any


def render_comparison(*, config: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    return "<p>" + found["advice"]
