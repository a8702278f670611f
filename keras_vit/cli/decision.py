"""The options of every command that names classes with a finished run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """Which class is named, and what is handed to a person; by default as the run was trained."""

    accept_risk: float | None = None
    """at most this share of the images that are not referred to a person may be labelled wrongly"""
    min_recall: tuple[str, ...] | None = None
    """name a class so often that this share of its images is found, CLASS=RECALL, such as scratches=0.98"""
    costs: str | None = None
    """name the class with the least expected cost, by the costs in this file"""
