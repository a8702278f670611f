"""Out-of-distribution detection: how far an image lies from the training images, and which are rejected.

A classifier predicts one of its classes for any image, even for a picture of a brick, and often with high
confidence. The features of the training images tell more: they form clusters around the centres of their
classes. How these are fitted stands in `ood_fit.py`.

The distances are scipy's. Written by hand here: `conformal_threshold`, an order statistic whose exact rank
`numpy.quantile` does not promise.
"""

import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.claims import check_npz
from keras_vit.errors import InputError
from keras_vit.files import whole_file

VALIDATION, TRAINING_FOLDS = FITTED_ON = ("validation", "training folds")
"""What a threshold was fitted on. Any other text in `fitted_on` is the reason why there is none."""

SHARE = 0.05  # of images like the training images, the largest fraction that may be rejected on average

GAP = 1e-3
"""A gap between distances, as a fraction of them, in whose middle rounding errors decide about no image. In
float32 the distances of one image differ by 1e-5 between backends, devices and formats."""


@dataclass(frozen=True, eq=False)
class Gaussians:
    """The Gaussians of all classes at one depth of the model: whitening maps, and centres behind them.

    Args:
        pieces: int64 (pieces, 2), which columns of the features they judge, one piece after the other: the
            first column of each, and the one behind its last.
        shift: float32 (dim,), subtracted from these columns, so that float32 loses no digits to their mean.
        projections: float32 (1 or classes, dim, rank). Behind the projection of a class, Euclidean distances
            to its centre are Mahalanobis distances. One is shared by all classes.
        centers: float32 (classes, rank), of the classes that had training images.
    """

    pieces: np.ndarray
    shift: np.ndarray
    projections: np.ndarray
    centers: np.ndarray

    def check(self) -> None:
        """Raises ValueError if the shapes do not fit together, or a number is not finite."""
        arrays, ndims = (self.shift, self.projections, self.centers), (1, 3, 2)
        given = " and ".join(f"{values.shape} {values.dtype}" for values in arrays)
        if any(
            v.ndim != n or not v.size or v.dtype != np.float32 for v, n in zip(arrays, ndims, strict=True)
        ):
            raise ValueError(f"shift, projections and centers of {given}")
        maps, dim, rank = self.projections.shape
        if dim != len(self.shift) or rank != self.centers.shape[1] or maps not in (1, len(self.centers)):
            raise ValueError(f"shift, projections and centers of {given}")
        if not all(np.isfinite(values).all() for values in arrays):
            raise ValueError("numbers that are not finite")
        if self.pieces.ndim != 2 or self.pieces.shape[1] != 2 or self.pieces.dtype != np.int64:
            raise ValueError(f"pieces of {self.pieces.shape} {self.pieces.dtype}")
        starts, stops = self.pieces.T
        if (starts < 0).any() or (stops <= starts).any() or sum(stops - starts) != dim:
            raise ValueError(f"pieces {self.pieces.tolist()} of {dim} columns")

    def taken(self, features: np.ndarray) -> np.ndarray:
        """Its columns of features: (n, dim)."""
        return np.concatenate([features[:, start:stop] for start, stop in self.pieces], axis=1)

    def squared(self, features: np.ndarray) -> np.ndarray:
        """The squared Mahalanobis distance of each image to each class: float64 (n, classes)."""
        from scipy.spatial.distance import cdist

        given = self.taken(features) - self.shift.astype(np.float64)
        maps = self.projections.astype(np.float64)
        if len(maps) == 1:
            return cdist(given @ maps[0], self.centers) ** 2
        both = zip(maps, self.centers, strict=True)
        return np.stack([np.square(given @ way - center).sum(axis=1) for way, center in both], axis=1)


@dataclass(frozen=True, eq=False)
class OODDetector:
    """Which images are out of distribution, by their features.

    The distance of an image to a class is the square root of its squared Mahalanobis distances at all depths
    plus the offset of the class. The image is judged by the nearest class.

    Args:
        depths: The Gaussians of each depth, one or more.
        offsets: float32 (classes,), 0 or more: how much larger the logarithm of the determinant of the
            covariance of a class is than that of the narrowest class. Without it, wide classes would take in
            images that are more likely of no class.
        width: Number of columns that the features have.
        threshold: Largest distance at which an image is accepted.
    """

    depths: tuple[Gaussians, ...]
    offsets: np.ndarray
    width: int
    threshold: float

    @classmethod
    def shared(cls, projection: np.ndarray, centers: np.ndarray, threshold: float) -> "OODDetector":
        """One covariance for all classes, on all features: the Mahalanobis distance to the nearest centre.

        Args:
            projection: float32 (dim, rank).
            centers: float32 (classes, rank), projected.
            threshold: Largest distance at which an image is accepted.
        """
        dim = len(projection)
        pieces = np.array([[0, dim]], "int64")
        whole = Gaussians(pieces, np.zeros(dim, "float32"), projection[None], centers)
        return cls((whole,), np.zeros(len(centers), "float32"), dim, threshold)

    @property
    def num_classes(self) -> int:
        """Number of classes that had training images."""
        return len(self.offsets)

    @property
    def num_bytes(self) -> int:
        """What the numbers of the detector take in float32, in a bundle or another format."""
        arrays = [v for each in self.depths for v in (each.shift, each.projections, each.centers)]
        return sum(values.nbytes for values in [*arrays, self.offsets])

    def check(self) -> None:
        """Raises ValueError if the shapes do not fit together, or a number is not finite."""
        if not self.depths:
            raise ValueError("no depths")
        for each in self.depths:
            each.check()
        if self.offsets.dtype != np.float32 or any(
            self.offsets.shape != each.centers.shape[:1] for each in self.depths
        ):
            raise ValueError(f"offsets of {self.offsets.shape} {self.offsets.dtype}")
        if not (np.isfinite(self.offsets).all() and (self.offsets >= 0).all()):
            raise ValueError("offsets that are not finite, or below 0")
        if max(each.pieces.max() for each in self.depths) > self.width:
            raise ValueError(f"columns beyond {self.width}")
        if not 0 < self.threshold < np.inf:
            raise ValueError(f"a threshold of {self.threshold}")

    def distances(self, features: ArrayLike) -> np.ndarray:
        """The distance of each image to the nearest class.

        Args:
            features: (n, width), n may be 0.

        Returns:
            float64 (n,); NaN for features that are not finite.

        Raises:
            ValueError: The features have another width.
        """
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or features.shape[1] != self.width:
            raise ValueError(
                f"features must have the shape (images, {self.width}). Received: {features.shape}"
            )
        squared = sum(each.squared(features) for each in self.depths) + self.offsets.astype(np.float64)
        return np.sqrt(squared.min(axis=1))

    def rejects(self, features: ArrayLike) -> np.ndarray:
        """Which images are rejected: bool (n,). True for features that are not finite.

        Arguments and errors as `distances`.
        """
        return ~(self.distances(features) <= self.threshold)

    def save(self, path: Path) -> None:
        """Writes an .npz file, completely or not at all."""
        arrays: dict[str, Any] = {
            "threshold": np.float64(self.threshold),
            "width": np.int64(self.width),
            "offsets": self.offsets,
        }
        for i, each in enumerate(self.depths):
            values = (each.pieces, each.shift, each.projections, each.centers)
            arrays |= {f"{name}_{i}": value for name, value in zip(ARRAYS, values, strict=True)}
        with whole_file(path, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "OODDetector":
        """Reads what `save` wrote, in this version or an earlier one.

        Raises:
            InputError: The file is missing or damaged.
        """
        try:
            check_npz(path)
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                found = _of_arrays({name: file[name] for name in file.files})
            found.check()
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path} cannot be read ({reason}): train the run again.") from error
        return found


Rejection = OODDetector  # its earlier name

ARRAYS = ("pieces", "shift", "projections", "centers")
"""Of each depth in the file, with the number of the depth behind."""


def _of_arrays(arrays: dict[str, np.ndarray]) -> OODDetector:
    """The detector that a file holds, before its shapes are checked.

    Raises:
        ValueError: The file has other arrays, or a number is an array.
    """
    depths = sum(name.startswith("pieces_") for name in arrays)
    now = {"threshold", "width", "offsets", *(f"{name}_{i}" for i in range(depths) for name in ARRAYS)}
    if arrays.keys() not in (now, {"projection", "centers", "threshold"}):
        raise ValueError(f"it holds {', '.join(sorted(arrays)) or 'nothing'}")
    numbers: dict[str, float] = {}
    for name in ("threshold", "width"):
        value = arrays.get(name)
        if value is None:
            continue
        if value.shape != () or value.dtype.kind != ("f" if name == "threshold" else "i"):
            raise ValueError(f"a {name} of shape {value.shape}, {value.dtype}")
        numbers[name] = value.item()
    if "width" not in numbers:
        projection, centers = arrays["projection"], arrays["centers"]
        if projection.ndim != 2:
            raise ValueError(f"a projection of {projection.shape} {projection.dtype}")
        return OODDetector.shared(projection, centers, numbers["threshold"])
    found = tuple(Gaussians(*(arrays[f"{name}_{i}"] for name in ARRAYS)) for i in range(depths))
    return OODDetector(found, arrays["offsets"], int(numbers["width"]), numbers["threshold"])


def why_too_few(images: int, share: float, part: str = "validation") -> str | None:
    """The reason why the images of a part are too few for a threshold, or `None` if they are enough."""
    if images == 0:
        return f"nothing: there is no {part} part"
    needed = least_images(share)
    if images < needed:
        return (
            f"nothing: to reject {100 * share:g} % of such images at most takes {needed} {part} images, "
            f"there are {images}"
        )
    return None


def least_images(share: float) -> int:
    """The smallest number of validation images that allows a threshold with this share."""
    return int(np.ceil(1 / share - 1 - 1e-9))


def conformal_threshold(distances: ArrayLike, share: float) -> float:
    """The distance that a new image of the same kind exceeds with a probability of at most `share`.

    The plain quantile of few images is too low. Of n images and a new one, each is equally likely to have the
    largest distance. So the ceil((n + 1)(1 - share))-th smallest of the n distances keeps the guarantee:
    split conformal prediction, V. Vovk, A. Gammerman, G. Shafer, "Algorithmic learning in a random world",
    2005. The guarantee holds on average over validation sets; with one set, the share may be off by about
    sqrt(share / n).

    Any larger number keeps the guarantee too. The threshold is the middle of the first gap above that
    distance which is wider than the rounding errors of another device or format (see `GAP`): on a data point,
    they would decide about the image.

    Args:
        distances: (n,), of validation images; n is at least `least_images(share)`.
        share: Above 0, below 1.

    Raises:
        ValueError: There are too few images for the guarantee, or a distance is not finite.
    """
    distances = np.sort(np.asarray(distances, dtype=np.float64))
    if len(distances) < least_images(share):
        raise ValueError(
            f"A share of {share} needs {least_images(share)} images or more. Received: {len(distances)}"
        )
    if not np.isfinite(distances).all():
        raise ValueError("distances must be finite.")
    rank = int(np.ceil((len(distances) + 1) * (1 - share) - 1e-9))
    return between(distances[rank - 1 :])


def between(scores: np.ndarray) -> float:
    """A threshold above the first of some sorted scores that does not lie on one of them.

    Args:
        scores: sorted, one or more. The first must not be above the threshold.

    Returns:
        The middle of the first gap that is wider than `GAP`; above all scores if there is none.
    """
    for low, high in pairwise([*scores.tolist(), np.inf]):
        width = GAP * max(abs(low), np.finfo(np.float32).tiny)
        if high - low > width:
            return float(low + width if high == np.inf else (low + high) / 2)
    raise AssertionError("the last gap has no end")
