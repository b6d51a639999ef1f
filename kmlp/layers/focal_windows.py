"""Numbers of the keys of focal attention: neighbours and pooled windows."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.errors import InputError, check_choice, check_positive
from kmlp.layers.initializers import start
from kmlp.layers.layer import Layer
from kmlp.layers.partition import cut, put_together
from kmlp.typing import KnownShape, Shape, Tensor

LEVELS = (1, 2)
_MOST_PAIRS = 1 << 26


def tiling(size: tuple[int, int], window_size: int) -> int | None:
    """Return the side of the windows that tile a map, as the published code has it.

    Args:
        size: Size `(h, w)` of the map.
        window_size: Side that the windows have on a map that exceeds it.

    Returns:
        The side, that of the map's shorter side where it does not exceed
        `window_size`; `None` where windows of this side do not tile the map.
    """
    side = min(window_size, *size)
    return None if any(s % side for s in size) else side


@dataclasses.dataclass(frozen=True)
class FocalWindows:
    """Windows of a map, and the keys that each of them attends to.

    Positions are numbered window by window, row by row within a window, and pooled
    windows behind all positions. A window's keys are its own positions, then the
    neighbours, then the pooled windows.

    Attributes:
        size: Size `(h, w)` of the map, which the windows tile.
        side: Side of a window, in positions.
        expansion: Distance that neighbours reach beyond the window; 0: there are none.
        focal_window: Side of the region of pooled windows, odd; 0: there are none.

    Reference: Focal Transformer (Yang et al., 2021), Sect. 3.2.
    """

    size: tuple[int, int]
    side: int
    expansion: int
    focal_window: int

    @classmethod
    def of(
        cls, size: Any, window_size: int, *, expansion: int, focal_window: int
    ) -> FocalWindows:
        """Return the windows of a map.

        As in the published code, one window along a side means no neighbours.
        """
        side = tiling(size, window_size)
        if side is None:
            raise InputError(
                f"Windows of {min(window_size, *size)}x{min(window_size, *size)} "
                "positions do not tile the map; choose a size at which they do. "
                f"Received: a map of {size[0]}x{size[1]}"
            )
        expansion = expansion if min(size) > window_size else 0
        windows = cls(tuple(size), side, expansion, focal_window)
        if max(windows.number, windows.area) * windows.keys > _MOST_PAIRS:
            raise InputError(
                "Focal windows are too many or too large for an index of all pairs: "
                f"take a smaller map. Received: a map of {size[0]}x{size[1]}, windows "
                f"of {side}x{side}, expansion={expansion}"
            )
        return windows

    @property
    def grid(self) -> tuple[int, int]:
        """Return the grid of windows, `(rows, columns)`."""
        height, width = self.size
        return height // self.side, width // self.side

    @property
    def number(self) -> int:
        """Return the number of windows."""
        rows, columns = self.grid
        return rows * columns

    @property
    def area(self) -> int:
        """Return the number of positions in a window."""
        return self.side**2

    @property
    def neighbours(self) -> int:
        """Count the positions that a window sees around itself, some of them twice."""
        return 4 * (self.area - (self.side - self.expansion) ** 2)

    @property
    def keys(self) -> int:
        """Count the positions and pooled windows that a window attends to."""
        rows, columns = (min(self.focal_window, 2 * n - 1) for n in self.grid)
        return self.area + self.neighbours + rows * columns

    @property
    def in_order(self) -> bool:
        """Return whether the windows' keys, one after the other, are all there is."""
        index = self.key_index()
        pooled = self.number if self.focal_window else 0
        total = self.number * self.area + pooled
        return index.size == total and (index.ravel() == np.arange(total)).all()

    def key_index(self) -> np.ndarray:
        """Return `(windows, keys)`: numbers of the positions and pooled windows to see.

        Pooled windows beyond the map are the window's own one, for `outside`.
        """
        own = np.arange(self.number * self.area).reshape(self.number, self.area)
        index = [own]
        if self.expansion:
            index.append(self._neighbour_index(own))
        if self.focal_window:
            at = np.arange(self.number).reshape(self.number, 1)
            index.append(own.size + np.where(self.outside(), at, self._pooled()))
        return np.concatenate(index, axis=1).astype("int32")

    def _neighbour_index(self, own):
        """Index a window's positions once moved to each corner, without its own.

        What lies between two corners is in two of them. The map is a torus.
        """
        rows, columns = self.grid
        # (h/s·w/s, s·s) -> (h, w): the number of each position
        numbers = own.reshape(rows, columns, self.side, self.side)
        numbers = numbers.transpose(0, 2, 1, 3).reshape(self.size)
        inside = np.arange(self.side)
        index = []
        for down, right in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            r, c = inside + down * self.expansion, inside + right * self.expansion
            beyond = ~np.logical_and(
                np.isin(r, inside)[:, None], np.isin(c, inside)[None]
            )
            r = (np.arange(rows)[:, None] * self.side + r) % self.size[0]
            c = (np.arange(columns)[:, None] * self.side + c) % self.size[1]
            # (rows, 1, s, 1) and (1, columns, 1, s)
            moved = numbers[r[:, None, :, None], c[None, :, None, :]]
            index.append(moved.reshape(self.number, self.side, self.side)[:, beyond])
        return np.concatenate(index, axis=1)

    def outside(self) -> np.ndarray:
        """Return `(windows, pooled keys)`: which pooled windows lie beyond the map."""
        down, right = self._offsets()
        r, c = (i[:, None] for i in np.divmod(np.arange(self.number), self.grid[1]))
        rows, columns = self.grid
        r, c = r + down, c + right
        return (r < 0) | (r >= rows) | (c < 0) | (c >= columns)

    def _pooled(self):
        down, right = self._offsets()
        at = np.arange(self.number)[:, None]
        return at + down * self.grid[1] + right

    def _offsets(self):
        """Return the distances of the pooled windows that any window has."""
        reach = self.focal_window // 2
        distances = np.arange(-reach, reach + 1)
        down, right = np.meshgrid(distances, distances, indexing="ij")
        seen = (abs(down) < self.grid[0]) & (abs(right) < self.grid[1])
        return down[seen], right[seen]

    def own_distances(self) -> np.ndarray:
        """Return `(area, area)`: which table entry a query has for a key beside it."""
        return self._distances(np.arange(self.area), self.side)

    def pooled_distances(self) -> np.ndarray:
        """Return `(area, pooled keys)`: which entry a query has for a pooled window."""
        reach, (down, right) = self.focal_window // 2, self._offsets()
        regions = (down + reach) * self.focal_window + right + reach
        return self._distances(regions, self.focal_window)

    def _distances(self, keys, side):
        query = np.divmod(np.arange(self.area), self.side)
        key = np.divmod(keys, side)
        rows, columns = (
            q[:, None] - k[None] + side - 1 for q, k in zip(query, key, strict=True)
        )
        return (rows * (self.side + side - 1) + columns).astype("int32")

    def split(self, x: Tensor) -> Tensor:
        """Return a map's positions window by window, `(N, h·w, C)`."""
        channels = x.shape[-1]
        if self.grid[1] > 1:
            x = cut(x, self.grid, (self.side, self.side))
        return ops.reshape(x, (-1, self.number * self.area, channels))

    def join(self, x: Tensor) -> Tensor:
        """Return the map again: the inverse of `split`, of `(N·h·w, C)` too."""
        channels = x.shape[-1]
        if self.grid[1] > 1:
            x = put_together(x, self.grid, (self.side, self.side, channels))
        return ops.reshape(x, (-1, *self.size, channels))


def check_focal(
    heads: int, window_size: int, focal_window: int, focal_level: int, expansion: int
) -> None:
    """Check the arguments of `FocalAttention`.

    Raises:
        InputError: If one is out of its range.
    """
    check_positive(heads=heads, window_size=window_size, focal_window=focal_window)
    if not focal_window % 2:
        raise InputError(
            "`focal_window` must be odd: the region lies around its window. "
            f"Received: focal_window={focal_window}"
        )
    check_choice(LEVELS, focal_level=focal_level)
    if not isinstance(expansion, int) or not 0 <= expansion <= window_size:
        raise InputError(
            "`expansion` must be an integer from 0 to `window_size`. "
            f"Received: expansion={expansion!r}, window_size={window_size}"
        )


@keras.saving.register_keras_serializable("kmlp")
class WindowPooling(Layer):
    """One position for each window: a learned weighted sum, shared by the channels.

    Args:
        use_bias: Whether a number is added, the same to every channel.
        kernel_initializer: Initializer of the weights.

    Shapes: `(N, positions, C)` to `(N, C)`.

    Reference: Focal Transformer (Yang et al., 2021), Sect. 3.2, sub-window pooling.
    """

    def __init__(self, *, use_bias=True, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)

    def build(self, input_shape: KnownShape) -> None:
        kernel, bias = start(self.kernel_initializer, input_shape[1])
        self.kernel = self.add_weight(
            name="kernel", shape=(1, input_shape[1]), initializer=kernel
        )
        self.bias = self._bias(1, start=bias)

    def call(self, inputs: Tensor) -> Tensor:
        x = ops.reshape(ops.matmul(self.kernel[None], inputs), (-1, inputs.shape[-1]))
        return x if self.bias is None else x + self.bias

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[-1])

    def multiply_adds(self, input_shape: KnownShape) -> int:
        return input_shape[1] * input_shape[2]
