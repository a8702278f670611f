"""What is measured: the models, and who can run them."""

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Work:
    """A model, its images and a batch.

    Args:
        name: as it stands in the table.
        variant: of `keras_vit`.
        image_size: in pixels; images are square.
        channels: of an image.
        batch: images per step.
        depth, dim, num_heads, head_dim, mlp_dim, patch_size: for the other packages; `head_dim` of `None`
            means `dim // num_heads`.
        dropout_rate: on the embedding, the branches and in the MLP.
        others: whether other packages have this model.
    """

    name: str
    variant: str
    image_size: int
    channels: int
    batch: int
    depth: int
    dim: int
    num_heads: int
    mlp_dim: int
    patch_size: int
    head_dim: int | None = None
    dropout_rate: float = 0.0
    num_classes: int = 6
    others: bool = True

    @property
    def width(self) -> int:
        """Of a head."""
        return self.head_dim or self.dim // self.num_heads

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def images(self) -> int:
        """That are held in memory for a round."""
        return min(1024, 128 * self.batch) if self.image_size < 100 else 2 * self.batch


_STUDY = Work("head width 16", "defect/4", 28, 1, 64, 6, 64, 4, 128, 4)
_TI = Work("Ti/16, 224 pixels", "Ti/16", 224, 3, 16, 12, 192, 3, 768, 16)

WORKS = {
    "heads16": _STUDY,
    "defect": replace(_STUDY, name="defect/4 without dropout", head_dim=64),
    "dropout": replace(_STUDY, name="defect/4 with dropout 0.1", head_dim=64, dropout_rate=0.1),
    "conv": replace(_STUDY, name="defect-conv/4", variant="defect-conv/4", others=False),
    "batch1": replace(_STUDY, name="head width 16, batch 1", batch=1),
    "ti16": _TI,
    "s16": replace(_TI, name="S/16, 224 pixels", variant="S/16", batch=8, dim=384, num_heads=6, mlp_dim=1536),
}

OURS = ("tensorflow", "jax", "torch")
PEERS = (
    "vit-pytorch",
    "vit-pytorch compiled",
    "timm",
    "timm compiled",
    "transformers",
    "keras-hub tensorflow",
    "keras-hub jax",
    "keras-hub torch",
)


@dataclass(frozen=True)
class Cell:
    """A work under one precision on a number of threads."""

    work: str
    precision: str = "float32"
    threads: int = 2

    @property
    def title(self) -> str:
        cores = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{WORKS[self.work].name}, {self.precision}, {cores}"


CELLS = tuple(
    Cell(work, precision, threads)
    for threads, works in ((1, tuple(WORKS)), (2, tuple(WORKS)))
    for work in works
    for precision in ("float32", "bfloat16")
)


def variants(cell: Cell) -> list[str]:
    """Who can run the work: other packages have no head wider than `dim // num_heads`, and no conv stem."""
    work = WORKS[cell.work]
    found = [f"ours {backend}" for backend in OURS]
    if work.others:
        wide = work.width != work.dim // work.num_heads
        found += [peer for peer in PEERS if not wide or peer.startswith("vit-pytorch")]
    return found


def as_arguments(cell: Cell) -> dict:
    """For the process of a variant."""
    work = WORKS[cell.work]
    return {**asdict(work), "images": work.images, "precision": cell.precision, "threads": cell.threads}
