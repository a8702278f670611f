import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit.model.config import Position, check_as, check_sincos2d
from keras_vit.model.layers.base import ViTLayer


@keras.saving.register_keras_serializable(package="keras_vit")
class PositionEmbedding(ViTLayer):
    """Adds to each token the embedding of its position in the image.

    `"learned"` is a table as in Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929), with a row for
    the class token and one for the distillation token. `"sincos2d"` is the fixed table of MoCo v3 and Beyer
    et al. 2022 (https://arxiv.org/abs/2205.01580), which adds nothing to these two. Registers have no
    position and get nothing, as in Darcet et al. 2023.

    Args:
        grid: (rows, columns) of the patches.
        kind: `"learned"` or `"sincos2d"`.
        use_cls: whether the first token is a class token.
        num_registers: number of registers before the patches.
        use_distilled: whether a distillation token comes before the registers.
        class_position: whether a learned table has rows for the class token and the distillation token;
            without them, as in DeiT III (https://arxiv.org/abs/2204.07118), it adds nothing to the two.

    Input shape:
        `(batch, use_cls + use_distilled + num_registers + rows * columns, dim)`; for `"sincos2d"` 4 divides
        dim.

    Output shape:
        The input shape.

    Example:
        >>> PositionEmbedding(grid=(7, 7))(keras.random.normal((2, 50, 64))).shape
        (2, 50, 64)
    """

    def __init__(
        self,
        grid: Sequence[int],
        kind: Position = "learned",
        use_cls: bool = True,
        num_registers: int = 0,
        use_distilled: bool = False,
        class_position: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if len(grid) != 2 or min(grid) < 1:
            raise ValueError(f"grid must be (rows, columns), each 1 or more. Received: grid={grid}")
        check_as("position", kind=kind)
        self.grid = tuple(grid)
        self.kind = kind
        self.use_cls = use_cls
        self.num_registers = num_registers
        self.use_distilled = use_distilled
        self.class_position = class_position

    @property
    def num_first(self) -> int:
        """Number of tokens before those of the patches."""
        return int(self.use_cls) + int(self.use_distilled) + self.num_registers

    @property
    def num_first_rows(self) -> int:
        """Number of rows of the table before those of the patches."""
        if self.kind != "learned" or not self.class_position:
            return 0
        return int(self.use_cls) + int(self.use_distilled)

    def build(self, input_shape):
        dim = input_shape[-1]
        expected = self.num_first + math.prod(self.grid)
        if input_shape[1] is not None and input_shape[1] != expected:
            distilled = ", use_distilled=True" if self.use_distilled else ""
            raise ValueError(
                f"grid={self.grid}, use_cls={self.use_cls}{distilled} and num_registers={self.num_registers} "
                f"make {expected} tokens. Received: {input_shape[1]} tokens"
            )
        if self.kind == "learned":
            self.table = self.add_weight(
                shape=(1, self.num_first_rows + math.prod(self.grid), dim),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
                name="table",
            )
        else:
            self.fixed_table = sincos2d_table(self.grid, dim)[None]

    def call(self, tokens):
        learned, first = self.kind == "learned", self.num_first_rows
        table = self.table if learned else ops.convert_to_tensor(self.fixed_table)
        table = ops.cast(table, tokens.dtype)  # 1 k+n d
        gap = self.num_first - first
        if gap:  # tokens without a position: registers, and the first two if the table has no rows for them
            zeros = ops.zeros((1, gap, tokens.shape[-1]), dtype=table.dtype)
            table = ops.concatenate([table[:, :first], zeros, table[:, first:]], axis=1)
        return tokens + table  # b k+n d

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            grid=self.grid,
            kind=self.kind,
            use_cls=self.use_cls,
            num_registers=self.num_registers,
            use_distilled=self.use_distilled,
            class_position=self.class_position,
        )
        return config


def sincos2d_table(grid: Sequence[int], dim: int, temperature: float = 10_000.0) -> np.ndarray:
    """The fixed table of sines and cosines: a quarter of the channels each for sin x, cos x, sin y, cos y.

    Args:
        grid: (rows, columns).
        dim: width of a token; 4 divides it.
        temperature: the longest wavelength over 2 pi.

    Returns:
        float32 numpy array (rows * columns, dim), as `posemb_sincos_2d` of big_vision gives it.
    """
    check_sincos2d(dim)
    rows, columns = np.mgrid[: grid[0], : grid[1]]
    # One frequency has no spacing: dim = 4 uses wavelength 1 only.
    frequencies = 1.0 / temperature ** (np.arange(dim // 4) / max(dim // 4 - 1, 1))
    y = rows.reshape(-1, 1) * frequencies
    x = columns.reshape(-1, 1) * frequencies
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1).astype("float32")


def resize_position_table(
    table: Any, grid: Sequence[int], new_grid: Sequence[int], num_prefix: int = 1
) -> np.ndarray:
    """A learned table for another grid: the rows of the patches are resized bicubically, the others stay.

    As Dosovitskiy et al. 2020 do before fine-tuning at a higher resolution (section 3.2).

    Args:
        table: (1, num_prefix + rows * columns, dim).
        grid: (rows, columns) that the table is for.
        new_grid: (rows, columns) of the new table.
        num_prefix: rows of the table that are not patches: 1 with a class token, 2 with a distillation
            token too, else 0.

    Returns:
        float32 numpy array (1, num_prefix + new rows * new columns, dim).
    """
    table = np.asarray(table, dtype="float32")
    if table.ndim != 3 or table.shape[1] != num_prefix + math.prod(grid):
        raise ValueError(
            "table must be (1, num_prefix + rows * columns, dim). "
            f"Received: {table.shape} for grid={grid}, num_prefix={num_prefix}"
        )
    if tuple(grid) == tuple(new_grid):
        return table
    image = table[:, num_prefix:].reshape(1, *grid, -1)
    resized = ops.image.resize(image, tuple(new_grid), "bicubic", antialias=True, data_format="channels_last")
    patches = ops.convert_to_numpy(resized).reshape(1, math.prod(new_grid), -1)
    return np.concatenate([table[:, :num_prefix], patches], axis=1)
