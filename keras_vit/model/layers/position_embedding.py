import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_vit.model.config import Position, check_as, check_sincos2d


@keras.saving.register_keras_serializable(package="keras_vit")
class PositionEmbedding(layers.Layer):
    """Adds to each token the embedding of its position in the image.

    `"learned"` is a table as in Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929), with a row for
    the class token. `"sincos2d"` is the fixed table of MoCo v3 and Beyer et al. 2022
    (https://arxiv.org/abs/2205.01580), which adds nothing to the class token. Registers have no position and
    get nothing, as in Darcet et al. 2023.

    Args:
        grid: (rows, columns) of the patches.
        kind: `"learned"` or `"sincos2d"`.
        use_cls: whether the first token is a class token.
        num_registers: number of registers before the patches.

    Input shape:
        `(batch, use_cls + num_registers + rows * columns, dim)`; for `"sincos2d"` 4 divides dim.

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

    def build(self, input_shape):
        dim = input_shape[-1]
        expected = int(self.use_cls) + self.num_registers + math.prod(self.grid)
        if input_shape[1] is not None and input_shape[1] != expected:
            raise ValueError(
                f"grid={self.grid}, use_cls={self.use_cls} and num_registers={self.num_registers} "
                f"make {expected} tokens. Received: {input_shape[1]} tokens"
            )
        if self.kind == "learned":
            self.table = self.add_weight(
                shape=(1, int(self.use_cls) + math.prod(self.grid), dim),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
                name="table",
            )
        else:
            self.fixed_table = sincos2d_table(self.grid, dim)[None]

    def call(self, tokens):
        if self.kind == "learned":
            table, first = self.table, int(self.use_cls)
        else:
            table, first = ops.convert_to_tensor(self.fixed_table), 0
        table = ops.cast(table, tokens.dtype)  # 1 k+n d
        gap = int(self.use_cls) + self.num_registers - first
        if gap:  # tokens without a position: registers, and for sin-cos the class token
            zeros = ops.zeros((1, gap, tokens.shape[-1]), dtype=table.dtype)
            table = ops.concatenate([table[:, :first], zeros, table[:, first:]], axis=1)
        return tokens + table  # b k+n d

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(grid=self.grid, kind=self.kind, use_cls=self.use_cls, num_registers=self.num_registers)
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
        num_prefix: rows of the table that are not patches: 1 with a class token, else 0.

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
