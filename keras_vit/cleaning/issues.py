"""What an audit says of single images."""

from dataclasses import dataclass

WRONG_LABEL = "probably wrong label"
TWO_CLASSES = "same image in two classes"
NEAR_CLASSES = "near duplicate in another class"
COPY = "exact duplicate"
NEAR = "near duplicate"
OUTLIER = "outlier"
UNREADABLE = "unreadable"
DAMAGED = "damaged"


@dataclass(frozen=True)
class Issue:
    """One finding on one image.

    Args:
        position: of the image in its image set.
        kind: one of the names of this module, or of `keras_vit.data.quality.KINDS`.
        score: how sure it is, 0 to 1.
        text: what there is to know beside the kind, or nothing.
        suggested: the label that the image may have instead, a position in the classes, or `None`.
    """

    position: int
    kind: str
    score: float
    text: str = ""
    suggested: int | None = None
