"""`OODDetector.distances` as a layer of the answer model, and so of the bundle and of all formats."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_vit.evaluation.ood import OODDetector

PROJECTION = "ood_projection"
"""Part of the name of the projections' operations in a TensorFlow graph."""


class OODDistance(layers.Layer):
    """`OODDetector.distances` as a layer: the distance to the nearest class.

    The projections and the centres are weights, because a TensorFlow graph holds a constant once per use.

    Args:
        width: number of columns of the features that the detector knows. They are the last columns of the
            input, whose first ones may be of a later version than the detector.
        pieces: for each Gaussian, the first columns and the ones behind the last of its pieces.
        maps: for each Gaussian, how many projections it has: 1, or `num_centers`.
        ranks: for each Gaussian, the width of a projection.
        num_centers: number of classes.

    Input shape:
        `(batch, dim)`, dim is `width` or more

    Output shape:
        `(batch,)`, float32; NaN or infinite where the features are not finite.
    """

    def __init__(
        self,
        width: int,
        pieces: Sequence[Sequence[Sequence[int]]],
        maps: Sequence[int],
        ranks: Sequence[int],
        num_centers: int,
        **kwargs: Any,
    ):
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        self.width = width
        self.pieces = [[list(ends) for ends in each] for each in pieces]
        self.maps = list(maps)
        self.ranks = list(ranks)
        self.num_centers = num_centers

    def build(self, input_shape):
        self.shifts, self.projections, self.centers = [], [], []
        for i, (pieces, maps, rank) in enumerate(zip(self.pieces, self.maps, self.ranks, strict=True)):
            dim = sum(stop - start for start, stop in pieces)
            self.shifts.append(self.add_weight(shape=(dim,), name=f"shift_{i}"))
            self.projections.append(self.add_weight(shape=(dim, maps * rank), name=f"projection_{i}"))
            self.centers.append(self.add_weight(shape=(self.num_centers, rank), name=f"centers_{i}"))
        self.offsets = self.add_weight(shape=(self.num_centers,), name="offsets")

    def call(self, features):
        features = features[:, features.shape[-1] - self.width :]
        # The offsets are added before the sum: OpenVINO adds them to the wrong numbers behind it, for batches
        # of more than one image.
        squares = []
        offset = ops.expand_dims(self.offsets / self.ranks[0], -1)  # k 1
        for i, (pieces, maps, rank) in enumerate(zip(self.pieces, self.maps, self.ranks, strict=True)):
            taken = [features[:, start:stop] for start, stop in pieces]
            given = ops.concatenate(taken, axis=-1) if len(taken) > 1 else taken[0]
            given = given - ops.convert_to_tensor(self.shifts[i])
            with keras.name_scope(PROJECTION):
                projected = ops.matmul(given, self.projections[i])  # b (k r)
            projected = ops.reshape(projected, (-1, maps, rank))  # b k r
            away = projected - ops.convert_to_tensor(self.centers[i])  # b k r
            squares.append(ops.square(away) if i else ops.square(away) + offset)  # b k r
        together = ops.concatenate(squares, axis=-1) if len(squares) > 1 else squares[0]
        return ops.sqrt(ops.min(ops.sum(together, axis=-1), axis=-1))  # b

    def compute_output_shape(self, input_shape):
        return input_shape[:1]

    def get_config(self):
        own = {
            "width": self.width,
            "pieces": self.pieces,
            "maps": self.maps,
            "ranks": self.ranks,
            "num_centers": self.num_centers,
        }
        return {**super().get_config(), **own}


def ood_distance(detector: OODDetector) -> OODDistance:
    """The layer with the numbers of a detector."""
    layer = OODDistance(
        detector.width,
        [each.pieces.tolist() for each in detector.depths],
        [len(each.projections) for each in detector.depths],
        [each.projections.shape[-1] for each in detector.depths],
        detector.num_classes,
        name="ood_distance",
    )
    layer.build((None, detector.width))
    for i, each in enumerate(detector.depths):
        maps = each.projections  # k d r
        layer.shifts[i].assign(each.shift)
        layer.projections[i].assign(np.swapaxes(maps, 0, 1).reshape(len(each.shift), -1))  # d (k r)
        layer.centers[i].assign(each.centers)
    layer.offsets.assign(detector.offsets)
    return layer
