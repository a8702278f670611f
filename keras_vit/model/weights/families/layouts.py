"""Rules for tensors that are laid out as in Keras and flax: Google's and KerasHub's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from keras_vit.model.weights.rules import Rule, same


@dataclass(frozen=True)
class Layout:
    """What a library calls the tensors of a layer; the layer's name and a slash stand before them.

    Args:
        norm: scale and shift of a layer normalisation.
        dense: kernel and bias of a dense layer.
    """

    norm: tuple[str, str]
    dense: tuple[str, str]

    def norm_rules(self, ours: str, theirs: str) -> tuple[Rule, Rule]:
        """A layer normalisation."""
        gamma, beta = self.norm
        return same(f"{ours}/gamma", f"{theirs}/{gamma}"), same(f"{ours}/beta", f"{theirs}/{beta}")

    def dense_rules(self, ours: str, theirs: str, bias: bool = True) -> Iterator[Rule]:
        """A dense layer with or without a bias."""
        yield same(f"{ours}/kernel", f"{theirs}/{self.dense[0]}")
        if bias:
            yield same(f"{ours}/bias", f"{theirs}/{self.dense[1]}")

    def heads_rules(self, ours: str, theirs: Sequence[str], num_heads: int, bias: bool) -> Iterator[Rule]:
        """Projections to heads: kernels (dim, heads, width), biases (heads, width); here side by side."""
        kernels, biases = (tuple(f"{name}/{kind}" for name in theirs) for kind in self.dense)

        def split(axis):
            return lambda a: [
                part.reshape(*part.shape[:-1], num_heads, -1) for part in np.split(a, len(theirs), axis)
            ]

        yield Rule(
            f"{ours}/kernel",
            kernels,
            lambda *parts: np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1),
            split(1),
        )
        if bias:
            yield Rule(
                f"{ours}/bias",
                biases,
                lambda *parts: np.concatenate([part.ravel() for part in parts]),
                split(0),
            )

    def output_rules(self, ours: str, theirs: str, num_heads: int, bias: bool) -> Iterator[Rule]:
        """The projection from heads: a kernel (heads, width, dim); here (heads * width, dim)."""
        yield Rule(
            f"{ours}/kernel",
            (f"{theirs}/{self.dense[0]}",),
            lambda a: a.reshape(-1, a.shape[-1]),
            lambda a: [a.reshape(num_heads, -1, a.shape[-1])],
        )
        if bias:
            yield same(f"{ours}/bias", f"{theirs}/{self.dense[1]}")

    def patch_rules(
        self, ours: str, theirs: str, patch_size: int, channels: int, bias: bool
    ) -> Iterator[Rule]:
        """The patch projection: a convolution (p, p, channels, dim); here (p * p * channels, dim)."""
        yield Rule(
            f"{ours}/kernel",
            (f"{theirs}/{self.dense[0]}",),
            lambda a: a.reshape(-1, a.shape[-1]),
            lambda a: [a.reshape(patch_size, patch_size, channels, -1)],
        )
        if bias:
            yield same(f"{ours}/bias", f"{theirs}/{self.dense[1]}")
