import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_vit.errors import InputError
from keras_vit.model.arguments import whole
from keras_vit.model.config import Position, check_as, check_fields, check_sincos2d
from keras_vit.model.layers.base import ViTLayer
from keras_vit.model.layers.sizes import refused_unless_equal

TEMPERATURE = 10_000.0
"""Of `"sincos2d"`: the longest wavelength over 2 pi."""

OTHER_SIZE = "for another image size give the call its grid=(rows, columns), or a feature map"


@keras.saving.register_keras_serializable(package="keras_vit")
class PositionEmbedding(ViTLayer):
    """Adds to each token the embedding of its position in the image.

    `"learned"` is a table as in Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929), with a row for
    the class token and one for the distillation token. `"sincos2d"` is the fixed table of MoCo v3 and Beyer
    et al. 2022 (https://arxiv.org/abs/2205.01580), which adds nothing to these two. Registers have no
    position and get nothing, as in Darcet et al. 2023.

    Patches of another grid than that of the layer get a learned table that is resized bicubically, as
    `resize_position_table` does, or the fixed table of their grid. A number of tokens does not tell the grid
    (16 are 4 x 4 or 2 x 8), so give it in the call, or give a feature map, whose shape tells it.

    Args:
        grid: (rows, columns) of the patches.
        kind: `"learned"` or `"sincos2d"`.
        use_cls: whether the first token is a class token.
        num_registers: number of registers before the patches.
        use_distilled: whether a distillation token comes before the registers.
        class_position: whether a learned table has rows for the class token and the distillation token;
            without them, as in DeiT III (https://arxiv.org/abs/2204.07118), it adds nothing to the two.

    Call arguments:
        grid: (rows, columns) of the patches of these tokens; by default that of the layer. In a graph of
            TensorFlow, both or none may be tensors.

    Input shape:
        `(batch, use_cls + use_distilled + num_registers + rows * columns, dim)`, or without first tokens
        (`use_cls=False`) a feature map `(batch, rows, columns, dim)` with any number of rows and columns, as
        `PatchEmbed(feature_map=True)` gives it. For `"sincos2d"` 4 divides dim.

    Output shape:
        The input shape.

    Raises:
        InputError: the number of tokens is not that of the grid.

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
        self.grid = _checked_grid(grid)
        check_as("position", kind=kind)
        check_fields(num_registers=num_registers)
        self.kind = kind
        self.use_cls = use_cls
        self.num_registers = num_registers
        self.use_distilled = use_distilled
        self.class_position = class_position
        self.input_spec = layers.InputSpec(min_ndim=3, max_ndim=4)
        self.supports_masking = True

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
        if self.kind == "learned":
            self.table = self.add_weight(
                shape=(1, self.num_first_rows + math.prod(self.grid), dim),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
                name="table",
            )
        else:
            check_sincos2d(dim)
        self.input_spec = layers.InputSpec(min_ndim=3, max_ndim=4, axes={-1: dim})

    def call(self, tokens, grid=None):
        self._check_tokens(tuple(tokens.shape), grid)
        if len(tokens.shape) == 4:
            shape = ops.shape(tokens)
            patches = self._patch_rows(shape[1:3], shape[-1])
            return tokens + ops.cast(ops.reshape(patches, (1, *shape[1:])), tokens.dtype)  # b r s d
        grid = self.grid if grid is None else _checked_grid(grid)
        dim, count = tokens.shape[-1], self.num_first + grid[0] * grid[1]
        table = self._patch_rows(grid, dim)  # 1 n d
        # Tokens without a position get zeros: registers, and the first two if the table has no rows for them.
        if gap := self.num_first - self.num_first_rows:
            table = ops.concatenate([ops.zeros((1, gap, dim), dtype=table.dtype), table], axis=1)
        if self.num_first_rows:
            first = ops.cast(self.table[:, : self.num_first_rows], table.dtype)
            table = ops.concatenate([first, table], axis=1)
        if tokens.shape[1] is None or not _is_known(grid):
            # TensorFlow learns it when it runs; one token must not become many.
            tokens = refused_unless_equal(
                tokens,
                ops.shape(tokens)[1],
                count,
                f"grid={self.grid} makes another number of tokens; {OTHER_SIZE}",
            )
            tokens = ops.reshape(tokens, (ops.shape(tokens)[0], count, dim))
        return tokens + ops.cast(table, tokens.dtype)  # b k+n d

    def _patch_rows(self, grid, dim):
        """The rows of the patches of a grid: (1, rows * columns, dim)."""
        if self.kind != "learned":
            return sincos2d(grid, dim)[None]
        patches = ops.convert_to_tensor(self.table)[:, self.num_first_rows :]
        if _is_known(grid) and tuple(grid) == self.grid:
            return patches
        return resize_patch_rows(patches, self.grid, grid)

    def _check_tokens(self, shape, grid):
        """Refuses tokens that are not those of the grid."""
        if len(shape) == 4:
            if self.num_first:
                raise InputError(
                    "A feature map has no class token and no registers: give PositionEmbedding "
                    "use_cls=False, use_distilled=False and num_registers=0. "
                    f"Received: use_cls={self.use_cls}, use_distilled={self.use_distilled}, "
                    f"num_registers={self.num_registers}"
                )
            if grid is not None:
                raise InputError(f"A feature map tells its grid. Received: grid={grid}")
            return
        grid = self.grid if grid is None else _checked_grid(grid)
        if not _is_known(grid):  # tensors of TensorFlow
            return
        count, expected = shape[1], self.num_first + math.prod(grid)
        if count is not None and (not isinstance(count, int) or count != expected):
            distilled = ", use_distilled=True" if self.use_distilled else ""
            raise InputError(
                f"grid={grid}, use_cls={self.use_cls}{distilled} and num_registers={self.num_registers} "
                f"make {expected} tokens. Received: {count} tokens; {OTHER_SIZE}"
            )

    def compute_output_spec(self, tokens, grid=None):
        self._check_tokens(tokens.shape, grid)
        return keras.KerasTensor(tokens.shape, self.compute_dtype)

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


def _checked_grid(grid: Any) -> tuple[Any, Any]:
    """A grid as a tuple of Python's numbers, or of tensors that only TensorFlow knows."""
    sides = [whole(side, int) for side in grid] if isinstance(grid, Sequence | np.ndarray) else []
    is_known = [type(side) is int and side >= 1 for side in sides]
    if len(sides) != 2 or not all(known or _is_scalar(s) for known, s in zip(is_known, sides, strict=True)):
        raise InputError(f"grid must be (rows, columns), each 1 or more. Received: grid={grid}")
    return sides[0], sides[1]


def sincos2d(grid: Sequence[Any], dim: int) -> Any:
    """`sincos2d_table` of a grid that TensorFlow or JAX may know only when it runs: (rows * columns, dim)."""
    if _is_known(grid):
        return ops.convert_to_tensor(sincos2d_table(grid, dim))
    frequencies = ops.convert_to_tensor(_frequencies(dim).astype("float32"))
    rows, columns = (_count(side)[:, None] * frequencies for side in grid)
    y = rows[:, None] + 0 * columns[None]  # r s f
    x = 0 * rows[:, None] + columns[None]  # r s f
    table = ops.concatenate([ops.sin(x), ops.cos(x), ops.sin(y), ops.cos(y)], axis=-1)
    return ops.reshape(table, (grid[0] * grid[1], dim))


def resize_patch_rows(rows: Any, grid: Sequence[int], new_grid: Sequence[Any]) -> Any:
    """The rows of patches, resized bicubically.

    Args:
        rows: (1, rows * columns, dim) of `grid`.
        grid: (rows, columns).
        new_grid: the new ones; TensorFlow or JAX may know them only when they run.

    Returns:
        (1, new rows * new columns, dim), in float32.
    """
    image = ops.reshape(ops.cast(rows, "float32"), (*grid, -1))  # r s d
    down, across = (_bicubic(old, new) for old, new in zip(grid, new_grid, strict=True))
    image = ops.einsum("pr,rsd->psd", down, image)
    image = ops.einsum("qs,psd->pqd", across, image)
    return ops.reshape(image, (1, new_grid[0] * new_grid[1], image.shape[-1]))


def _bicubic(old: int, new: Any) -> Any:
    """The resize of one axis as a matrix (new, old): Keys' cubic kernel with antialiasing.

    A matrix, because `ops.image.resize` takes only sizes that are known when the model is made.
    """
    ratio = old / new if isinstance(new, int) else old / ops.cast(new, "float32")
    width = ops.maximum(ratio, 1.0)  # of the kernel, in old pixels
    centres = (_count(new) + 0.5) * ratio - 0.5
    x = ops.abs(centres[:, None] - _count(old)) / width  # new old
    near = ((1.5 * x - 2.5) * x) * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    weights = ops.where(x < 1.0, near, ops.where(x < 2.0, far, 0.0))
    return weights / ops.sum(weights, axis=1, keepdims=True)


def _is_scalar(value: Any) -> bool:
    """Whether it is a tensor, of one value that is not known."""
    return ops.is_tensor(value) and len(value.shape) == 0


def _is_known(grid: Sequence[Any]) -> bool:
    return all(isinstance(side, int) for side in grid)


def _count(stop: Any) -> Any:
    """0, 1, 2, ... below a number, in float32."""
    return ops.cast(ops.arange(stop, dtype="int32"), "float32")


def _frequencies(dim: int) -> np.ndarray:
    # One frequency has no spacing: dim = 4 uses wavelength 1 only.
    return 1.0 / TEMPERATURE ** (np.arange(dim // 4) / max(dim // 4 - 1, 1))


def sincos2d_table(grid: Sequence[int], dim: int) -> np.ndarray:
    """The fixed table of sines and cosines: a quarter of the channels each for sin x, cos x, sin y, cos y.

    Args:
        grid: (rows, columns).
        dim: width of a token; 4 divides it.

    Returns:
        float32 numpy array (rows * columns, dim), as `posemb_sincos_2d` of big_vision gives it.
    """
    check_sincos2d(dim)
    rows, columns = np.mgrid[: grid[0], : grid[1]]
    frequencies = _frequencies(dim)
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
    patches = ops.convert_to_numpy(resize_patch_rows(table[:, num_prefix:], grid, new_grid))
    return np.concatenate([table[:, :num_prefix], patches], axis=1)
