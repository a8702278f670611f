"""An order of training images in which each class comes equally often."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


def balanced_order(labels: np.ndarray, count: int, seed: "tf.Tensor") -> "tf.Tensor":
    """Positions of images, so that the numbers of the classes differ by one at most.

    Every image of a class comes before one of them comes again. Each seed gives another order, and other
    images of a class that has more than are needed.

    Args:
        labels: int (n,), a Python value: the order is part of a graph.
        count: how many positions.
        seed: int32 (2,).

    Returns:
        int32 (count,).
    """
    import tensorflow as tf

    _, rows, counts = np.unique(labels, return_inverse=True, return_counts=True)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32)
    seeds = [tf.random.experimental.stateless_fold_in(seed, i) for i in range(3)]
    shuffled = tf.random.experimental.stateless_shuffle(tf.range(len(labels)), seeds[0])
    grouped = tf.gather(shuffled, tf.argsort(tf.gather(rows.astype(np.int32), shuffled), stable=True))
    # Which classes get the slots that are left over differs between epochs.
    turn = tf.random.experimental.stateless_shuffle(tf.range(len(counts)), seeds[1])
    slots = tf.range(count)
    classes, times = tf.gather(turn, slots % len(counts)), slots // len(counts)
    drawn = tf.gather(
        grouped, tf.gather(starts, classes) + times % tf.gather(counts.astype(np.int32), classes)
    )
    return tf.random.experimental.stateless_shuffle(drawn, seeds[2])
