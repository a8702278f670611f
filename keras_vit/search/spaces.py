"""The spaces that have a name, and the images each is for. Nothing here imports Keras: `--help` reads it."""

from dataclasses import dataclass

from keras_vit.model.config import SIZES
from keras_vit.search.space import Choice, Range, SearchSpace


@dataclass(frozen=True)
class NamedSpace:
    """A space and what it is for.

    Args:
        space: what is searched.
        about: one line for people.
    """

    space: SearchSpace
    about: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) that the sizes of the space are used at."""
        size = SIZES[self.space.model]
        return (size.image_size, size.image_size, size.channels)


NAMED = {
    # Patches of 7 would be 16 tokens and train fast, but the conv stem halves the image and has no 7.
    "defect28": NamedSpace(
        SearchSpace(
            model="defect-conv",
            depth=Range(2, 10, default=6),
            num_heads=Choice((4, 2, 8)),
            dim=Range(32, 128, default=64, step=16),
            patch_size=Choice((4, 2)),
            mlp_ratio=Choice((2, 4)),
            stem=Choice(("conv", "linear")),
            drop_path_rate=Range(0.0, 0.2, default=0.0, step=0.05),
            learning_rate=Range(3e-4, 6e-3, default=2e-3, log=True),
            weight_decay=Range(1e-3, 0.3, default=0.05, log=True),
            batch_size=Choice((32, 64)),
            augmentation=Range(0.0, 1.0, default=0.5, step=0.25),
            epochs=27,
            # Eight times the reference: four times the tokens at twice the work for each, and no more.
            max_mult_adds=100_000_000,
        ),
        "small gray images, 28 pixels a side: the reference study's model and what lies around it",
    ),
    "small": NamedSpace(
        SearchSpace(
            model="S",
            depth=Range(6, 12, default=12),
            num_heads=Choice((6, 3)),
            # Multiples of 96: both head counts divide it, and a conv stem with patches of 32.
            dim=Range(192, 384, default=384, step=96),
            patch_size=Choice((16, 32)),
            mlp_ratio=Choice((4, 2, 3)),
            stem=Choice(("linear", "conv")),
            drop_path_rate=Range(0.0, 0.2, default=0.0, step=0.05),
            learning_rate=Range(1e-4, 3e-3, default=1e-3, log=True),
            weight_decay=Range(1e-3, 0.3, default=0.05, log=True),
            batch_size=Choice((32, 64)),
            augmentation=Range(0.0, 1.0, default=0.5, step=0.25),
            epochs=27,
        ),
        "colour images, 224 pixels a side: from Ti to S, best on a GPU",
    ),
}

SPACES: dict[str, SearchSpace] = {name: named.space for name, named in NAMED.items()}
