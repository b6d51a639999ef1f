"""Windows over a map of any size: how many, how far shifted, who sees whom."""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

# What the published code adds where a query must not see a key.
MASKED = -100.0


class Axis(NamedTuple):
    """Windows along one axis of a map; tensors where its size is not known before.

    Along an axis that a window covers there is one window as long as the map, which is
    not shifted.

    Attributes:
        size: positions of the map.
        window: positions of a window.
        windows: number of windows, the last of which may reach beyond the map.
        shift: how far the windows are shifted.
    """

    size: Any
    window: Any
    windows: Any
    shift: Any

    @classmethod
    def of(cls, size, window, shift):
        """The windows of an axis of `size` positions, `None` where it is not known."""
        if size is None:
            return cls(None, window, None, shift)
        if isinstance(size, int):
            shift, window = (shift if size > window else 0), min(size, window)
        else:
            shift = ops.where(size > window, shift, 0) if shift else 0
            window = ops.minimum(size, window)
        return cls(size, window, (size + window - 1) // window, shift)

    @property
    def length(self):
        """Positions of all windows."""
        return self.window * self.windows

    @property
    def known(self):
        """Whether the sizes are Python's numbers."""
        return isinstance(self.size, int)

    @property
    def padded(self):
        """Whether the windows reach, or may reach, beyond the map."""
        return not self.known or self.length != self.size

    @property
    def shifted(self):
        """Whether the windows are, or may be, shifted."""
        return not isinstance(self.shift, int) or self.shift > 0


def known(axes):
    """Whether all sizes are Python's numbers."""
    return all(axis.known for axis in axes)


def pad(inputs, axes):
    """A map with zeros at the bottom and right, up to the ends of the windows."""
    if not any(axis.padded for axis in axes):
        return inputs
    missing = [[0, axis.length - axis.size] for axis in axes]
    return ops.pad(inputs, [[0, 0], *missing, [0, 0]])


def crop(inputs, axes):
    """A padded map without its padding."""
    rows, columns = axes
    if not (rows.padded or columns.padded):
        return inputs
    return inputs[:, : rows.size, : columns.size]


def roll(inputs, axes, *, back=False):
    """A padded map rolled so that shifted windows begin at its corner, or `back`.

    As slices, which export as builtin operations everywhere.
    """
    for number, axis in enumerate(axes, start=1):
        if axis.shifted:
            edge = axis.length - axis.shift if back else axis.shift
            before = (slice(None),) * number
            parts = (
                inputs[(*before, slice(edge, None))],
                inputs[(*before, slice(None, edge))],
            )
            inputs = ops.concatenate(parts, axis=number)
    return inputs


def mask(axes):
    """What is added to the logits of shifted windows: `(windows, L, L)`.

    Behind the shift the last windows hold both ends of the map, which are no
    neighbours.
    """
    numbers = np if known(axes) else ops
    ends = [
        numbers.arange(axis.length, dtype="int32") >= axis.length - axis.shift
        for axis in axes
    ]
    rows, columns = (ops.cast(end, "int32") for end in ends)
    parts = 2 * rows[:, None] + columns
    rows, columns = axes
    # (H, W) -> (h, a, w, b) -> (windows, a·b)
    parts = ops.reshape(
        parts, (rows.windows, rows.window, columns.windows, columns.window)
    )
    parts = ops.reshape(
        ops.transpose(parts, (0, 2, 1, 3)), (-1, rows.window * columns.window)
    )
    apart = ops.not_equal(parts[:, None], parts[:, :, None])
    return MASKED * ops.cast(apart, "float32")


def distances(window, axes):
    """Where the pairs of positions of a window lie in a table of all distances.

    Args:
        window: positions along each side for which the table is made.
        axes: along which the windows may be shorter.

    Returns:
        `(L·L,)`, query before key, numbers below `(2·window - 1)²`.
    """
    rows, columns = axes
    steps = np.arange(window)
    steps = steps[:, None] - steps + window - 1
    # (a, b, a, b)
    table = steps[:, None, :, None] * (2 * window - 1) + steps[:, None]
    table = table.astype("int32")
    if not known(axes):
        table = ops.convert_to_tensor(table)
    table = table[: rows.window, : columns.window, : rows.window, : columns.window]
    return (np if known(axes) else ops).reshape(table, (-1,))
