"""Labels for images without any, spread from labelled images over a graph of images that look alike."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit import files
from keras_vit.data.audit import LISTED
from keras_vit.data.image_set import SPLIT_PARTS, Image, ImageSet
from keras_vit.data.reading import read_images
from keras_vit.data.sources.folder import list_images
from keras_vit.data.split import Split
from keras_vit.errors import InputError
from keras_vit.text import say

if TYPE_CHECKING:
    from keras_vit.data.decode import Decoding

TABLE = "unlabeled.csv"
"""The file of the run folder with the spread labels."""

# Chosen on images of NEU and X-SDD that are neither labelled nor of the test; 5 to 25 neighbours and 0.95 to
# 0.99 differ by at most half a point.
NEIGHBOURS = 10
ALPHA = 0.98
"""Share of an image's labels that it takes from its neighbours in each step; the rest stays what it was."""

TRUSTED = 1.3
"""A label is used if it is so many times as likely as the next one. The head is then right more often than
the spread labels, by 0.1 to 1.2 points on NEU and X-SDD with 1 and 5 labels per class. Without a limit it is
up to 1 point worse; a limit of 2 leaves out whole groups of images and costs 0.5 to 4 points."""


@dataclass(frozen=True)
class Unlabeled:
    """The images of a folder without labels that a run may learn from.

    Args:
        folder: as the user named it.
        names: of the images, relative to the folder.
        images: their files; each can be decoded.
        left_out: reason -> number of images.
        digests: of the decoded pixels of each image.
    """

    folder: str
    names: tuple[str, ...]
    images: Sequence[Image]
    left_out: dict[str, int]
    digests: Sequence[bytes] = ()

    def __len__(self) -> int:
        return len(self.names)

    def line(self, what: str = "images without labels") -> str:
        """What is printed of the images."""
        counted = ", ".join(f"{number} {reason}" for reason, number in self.left_out.items() if number)
        left_out = f"; left out: {counted}" if counted else ""
        return f"{what}: {len(self)} in {self.folder}{left_out}"


def read_unlabeled(
    folder: str,
    image_set: ImageSet,
    split: Split,
    decoding: "Decoding | None" = None,
    what: str = "images without labels",
    option: str = "--unlabeled",
    purpose: str = "to learn from",
) -> Unlabeled:
    """The images of a folder, nested or not, without those that the run has already.

    Copies of test or validation images would let the head see the images that judge it. Copies of training
    images have a label. Copies are images with the same decoded pixels. Images that cannot be read are named.

    Args:
        folder: the folder.
        image_set: the labelled images.
        split: of these.
        decoding: of the run, by which files become pixels; `None` for the defaults.
        what: the images are, for what is printed.
        option: that names the folder, for the message of an error.
        purpose: of the images, for the message too.

    Raises:
        InputError: the folder cannot be read, or it holds no image that is left.
    """
    found, notes = list_images(folder)
    for note in notes:
        say(f"{folder}: {note}.")
    read = read_images(list(found.values()), decoding=decoding)
    known: dict[bytes, str] = {}
    for part in SPLIT_PARTS:
        labelled = read_images([image_set.original(i) for i in getattr(split, part)], decoding=decoding)
        # A copy in two parts counts for the later one: test images stay unseen.
        known |= {info.digest: part for info in labelled.infos if info}
    reasons = {
        "validation": "as in the validation part",
        "test": "as in the test part",
        "train": "that have a label",
    }
    left_out = dict.fromkeys(("unreadable", *reasons.values()), 0)
    kept: dict[str, Image] = {}
    unreadable: list[str] = []
    digests: list[bytes] = []
    for (name, path), info, why in zip(found.items(), read.infos, read.reasons, strict=True):
        if info is None:
            unreadable.append(f"{name}: {why}")
        elif info.digest in known:
            left_out[reasons[known[info.digest]]] += 1
        else:
            kept[name] = path
            digests.append(info.digest)
    left_out["unreadable"] = len(unreadable)
    if unreadable:
        more = f"; and {len(unreadable) - LISTED} more" if len(unreadable) > LISTED else ""
        say(f"unreadable {what}: {'; '.join(unreadable[:LISTED])}{more}")
    if not kept:
        counted = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number)
        raise InputError(
            f"{folder} has no image {purpose} ({counted}): give a folder of other images, or omit {option}."
        )
    return Unlabeled(folder, tuple(kept), list(kept.values()), left_out, digests)


def spread_labels(
    features: np.ndarray, labels: np.ndarray, unlabeled: np.ndarray, num_classes: int
) -> np.ndarray:
    """Probabilities of the classes for images without labels, by label spreading.

    Each image is joined to the `NEIGHBOURS` images (fewer where there are few) that are nearest by the cosine
    of their standardised features, and takes `ALPHA` of its labels from them, until nothing changes. An edge
    weighs the more, the
    shorter it is for the neighbourhood of its ends.

    References: D. Zhou et al., "Learning with local and global consistency", NIPS 2003; the weights of the
    edges: L. Zelnik-Manor and P. Perona, "Self-tuning spectral clustering", NIPS 2004.

    Args:
        features: (n, width), of images with labels.
        labels: int (n,).
        unlabeled: (m, width), of images without labels.
        num_classes: that the labels count.

    Returns:
        float64 (m, num_classes). Rows sum to 1, or to 0 where no label reached an image.
    """
    from sklearn.semi_supervised import LabelSpreading

    both = np.concatenate([features, unlabeled]).astype("float64")
    both = (both - both.mean(axis=0)) / (both.std(axis=0) + 1e-6)
    known = np.concatenate([labels, np.full(len(unlabeled), -1)])
    # More neighbours than the images of a class would join the classes.
    count = min(NEIGHBOURS, max(1, len(both) // (2 * num_classes)))
    model = LabelSpreading(kernel=lambda rows, _: _graph(rows, count), alpha=ALPHA, max_iter=3000, tol=1e-4)
    model.fit(both, known)
    found = np.zeros((len(unlabeled), num_classes))
    found[:, model.classes_] = model.label_distributions_[len(features) :]
    return found


def _graph(rows: np.ndarray, count: int) -> Any:
    """Symmetric weights of the edges between each row and its `count` nearest, a sparse (n, n) matrix."""
    from scipy.sparse import csr_matrix
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    nearest = NearestNeighbors(n_neighbors=count).fit(normalize(rows))  # of unit length: cosine
    distances, neighbours = nearest.kneighbors()  # without the row itself
    scale = distances[:, -1]
    # Many copies of an image have a scale of 0, and would be cut off from all others.
    scale = np.maximum(scale, 0.1 * np.median(scale) + 1e-12)
    weights = np.exp(-(distances**2) / (scale[:, None] * scale[neighbours]))
    starts = np.arange(0, len(rows) * count + 1, count)
    edges = csr_matrix((weights.ravel(), neighbours.ravel(), starts), (len(rows), len(rows)))
    return edges + edges.T


@dataclass(frozen=True)
class Spread:
    """The labels that images without any got.

    Args:
        unlabeled: the images.
        class_names: of the labels.
        probabilities: of `spread_labels`.
        labelled: per class, how many images had a label from the start.
    """

    unlabeled: Unlabeled
    class_names: Sequence[str]
    probabilities: np.ndarray
    labelled: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """The likeliest class of each image: int (m,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the likeliest class: (m,)."""
        return self.probabilities.max(axis=1)

    @property
    def trusted(self) -> np.ndarray:
        """Which labels the head is fitted to: bool (m,)."""
        ordered = np.sort(self.probabilities, axis=1)
        return ordered[:, -1] > TRUSTED * ordered[:, -2]

    def write(self, path: Path) -> None:
        """Writes the table of the labels: path, label, confidence, trusted, and each class's probability."""
        rows = [
            {
                "path": name,
                "label": self.class_names[label] if confidence else "",
                "confidence": f"{confidence:.4f}",
                "trusted": "yes" if trusted else "no",
                **{
                    f"probability_{name}": f"{value:.4f}"
                    for name, value in zip(self.class_names, row, strict=True)
                },
            }
            for name, label, confidence, trusted, row in zip(
                self.unlabeled.names,
                self.labels,
                self.confidence,
                self.trusted,
                self.probabilities,
                strict=True,
            )
        ]
        files.write_csv(path, rows)

    def describe(self) -> dict[str, Any]:
        """What metrics.json holds of the labels, ready for JSON."""
        trusted, labels = self.trusted, self.labels
        reached = self.confidence > 0
        given, used = Counter(labels[reached].tolist()), Counter(labels[trusted].tolist())
        return {
            "folder": self.unlabeled.folder,
            "images": len(labels),
            "trusted": int(trusted.sum()),
            "trusted_from": TRUSTED,
            "left_out": dict(self.unlabeled.left_out),
            "neighbours": NEIGHBOURS,
            "alpha": ALPHA,
            "classes": [
                {
                    "name": name,
                    "labelled": int(self.labelled[i]),
                    "images": given[i],
                    "trusted": used[i],
                    "confidence": float(self.confidence[reached & (labels == i)].mean())
                    if given[i]
                    else None,
                }
                for i, name in enumerate(self.class_names)
            ],
        }

    def line(self) -> str:
        """What is printed of the labels."""
        trusted = int(self.trusted.sum())
        rule = f"{TRUSTED:g} times as likely as the next class, {TABLE}"
        if not trusted:
            return (
                f"labels: none of {len(self.labels)} spread ones is trusted ({rule}), so the head is fitted "
                "to the images with labels alone"
            )
        return f"labels: {trusted} of {len(self.labels)} spread ones are trusted ({rule})"
