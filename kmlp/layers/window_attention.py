"""Windows over a map of any size: how many, how far shifted, who sees whom."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kmlp import algebra
from kmlp.errors import InputError, check_positive
from kmlp.layers.initializers import NORMAL, initializer
from kmlp.layers.layer import Layer, assign, copy, host
from kmlp.layers.norms import affine_terms, normalization
from kmlp.typing import KnownShape, Tensor

# The published code adds this where a query must not see a key.
MASKED = -100.0
# An index of all pairs of a window's positions has this number to the power of four.
_LARGEST_WINDOW = 64


class Axis(NamedTuple):
    """Windows along one axis of a map; tensors where its size is not known before.

    Along an axis that a window covers there is one window as long as the map, which is
    not shifted.

    Attributes:
        size: Number of the map's positions along the axis.
        window: Number of a window's positions along the axis.
        windows: Number of windows, the last of which may reach beyond the map.
        shift: Distance by which the windows are shifted.
    """

    size: Any
    window: Any
    windows: Any
    shift: Any

    @classmethod
    def of(cls, size: Any, window: int, shift: int) -> Axis:
        """Return the windows of an axis of `size` positions, `None` if unknown."""
        if size is None:
            return cls(None, window, None, shift)
        if isinstance(size, int):
            shift, window = (shift if size > window else 0), min(size, window)
        else:
            shift = ops.where(size > window, shift, 0) if shift else 0
            window = ops.minimum(size, window)
        return cls(size, window, (size + window - 1) // window, shift)

    @property
    def length(self) -> Any:
        """Return the number of positions in all windows."""
        return self.window * self.windows

    @property
    def known(self) -> bool:
        """Return whether the size is a Python integer."""
        return isinstance(self.size, int)

    @property
    def padded(self) -> bool:
        """Return whether the windows reach, or may reach, beyond the map."""
        return not self.known or self.length != self.size

    @property
    def shifted(self) -> bool:
        """Return whether the windows are, or may be, shifted."""
        return not isinstance(self.shift, int) or self.shift > 0


def known(axes: Iterable[Axis]) -> bool:
    """Return whether all sizes are Python's numbers."""
    return all(axis.known for axis in axes)


def pad(inputs: Tensor, axes: Sequence[Axis]) -> Tensor:
    """Pad a map with zeros at the bottom and right, up to the ends of the windows."""
    if not any(axis.padded for axis in axes):
        return inputs
    missing = [[0, axis.length - axis.size] for axis in axes]
    return ops.pad(inputs, [[0, 0], *missing, [0, 0]])


def crop(inputs: Tensor, axes: Sequence[Axis]) -> Tensor:
    """Return a padded map without its padding."""
    rows, columns = axes
    if not (rows.padded or columns.padded):
        return inputs
    return inputs[:, : rows.size, : columns.size]


def roll(inputs: Tensor, axes: Sequence[Axis], *, back: bool = False) -> Tensor:
    """Roll a padded map so that shifted windows begin at its corner, or `back`.

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


def mask(axes: Sequence[Axis]) -> Tensor:
    """Return what is added to the logits of shifted windows, `(windows, L, L)`.

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


def distances(window: int, axes: Sequence[Axis]) -> Any:
    """Return where pairs of a window's positions lie in a table of all distances.

    Args:
        window: Number of positions along each side that the table is made for.
        axes: Axes along which the windows may be shorter.

    Returns:
        Indices `(L·L,)`, query before key, numbers below `(2·window - 1)²`.

    Raises:
        InputError: If the windows are too large for an index of all pairs.
    """
    if window > _LARGEST_WINDOW:
        raise InputError(
            f"Windows have at most {_LARGEST_WINDOW} positions along a side. "
            f"Received: window={window}"
        )
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


@keras.saving.register_keras_serializable("kmlp")
class WindowAttention(Layer):
    """Layer norm and multi-head self-attention in windows that may be shifted.

    Each window attends to itself, with a learned bias for every distance of two
    positions. Shifted windows reach around the borders of the map; what is no
    neighbour there does not see each other. At inference the norm's scale and shift and
    the scale of the queries are part of the map to queries, keys and values.

    Maps that the windows do not tile are padded behind the norm, at the bottom and
    right; padded positions are seen like others, as the published detectors have it.
    Along an axis that one window covers, it is as long as the map and not shifted. So
    maps of all sizes take the same weights.

    Args:
        heads: Number of heads.
        window_size: Positions along each side of a window.
        shift: Distance by which the windows are shifted down and to the right, less
            than `window_size`.
        folded: Whether this is the inference form.
        epsilon: Constant of the norm.
        kernel_initializer: Initializer of the two linear maps.

    Shapes: `(N, H, W, C)` in and out.

    Raises:
        InputError: If heads do not divide the channels, a window has no positions, or
            the shift is no part of it.

    Reference: Swin Transformer (Liu et al., 2021), Sect. 3.2, Eq. 4.
    """

    def __init__(
        self,
        heads,
        window_size=7,
        *,
        shift=0,
        folded=False,
        epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_positive(heads=heads, window_size=window_size)
        if not 0 <= shift < window_size:
            raise InputError(
                "`shift` must lie in [0, window_size). "
                f"Received: shift={shift}, window_size={window_size}"
            )
        self.normalize = normalization(
            "layer", epsilon=epsilon, affine=not folded, dtype=self.dtype_policy
        )

    def build(self, input_shape: KnownShape) -> None:
        self.channels = channels = input_shape[-1]
        if channels % self.heads:
            raise InputError(
                f"{self.name}: `heads` must divide the {channels} channels. "
                f"Received: heads={self.heads}"
            )
        self.normalize.build(input_shape)
        self.qkv = self._dense(3 * channels, "qkv", channels)
        self.proj = self._dense(channels, "proj", channels)
        self.relative_position_bias_table = self.add_weight(
            name="relative_position_bias_table",
            shape=((2 * self.window_size - 1) ** 2, self.heads),
            initializer=initializer(NORMAL),
            autocast=False,
        )
        self.outside = None
        if self.folded and any(a.padded for a in self._axes(input_shape[1:3])):
            # The bias where there is no map, which the norm's shift does not reach.
            self.outside = self.add_weight(
                name="outside", shape=(3 * channels,), initializer="zeros"
            )

    def _axes(self, sizes):
        return [Axis.of(s, self.window_size, self.shift) for s in sizes]

    def call(self, inputs: Tensor) -> Tensor:
        batch, *sizes, _ = ops.shape(inputs)
        axes = self._axes(sizes)
        if known(axes):
            batch = -1  # no shape to compute in the graph
        lengths = [axis.length for axis in axes]
        x = self.normalize(inputs)
        if not self.folded:
            x = self._apply(self.qkv, pad(x, axes), (batch, *lengths))
        else:
            x = self._apply(self.qkv, x, (batch, *sizes))
            if self.outside is not None:
                x = pad(x, axes) + self.outside
        x = self._attend(roll(x, axes), axes, batch)
        x = roll(x, axes, back=True)
        return self._apply(self.proj, crop(x, axes), (batch, *sizes))

    def _apply(self, dense, x, shape):
        # Two-dimensional, so that the bias fuses into the product.
        x = dense(ops.reshape(x, (-1, self.channels)))
        return ops.reshape(x, (*shape, dense.units))

    def _attend(self, qkv, axes, batch):
        """Attend by queries, keys, values, `(N, h·a, w·b, 3C)`, to `(…, C)`."""
        rows, columns = axes
        width = self.channels // self.heads
        split = (-1, rows.window, columns.windows, columns.window, self.heads, width)
        area = rows.window * columns.window
        stacked = (batch, rows.windows * columns.windows * self.heads)
        query, key, value = (
            ops.reshape(part, split) for part in ops.split(qkv, 3, axis=-1)
        )
        # (N·h, a, w, b, heads, d) -> (N, h·w·heads, a·b, d), the keys transposed
        query = ops.transpose(query, (0, 2, 4, 1, 3, 5))
        query = ops.reshape(query, (*stacked, area, width))
        key = ops.transpose(key, (0, 2, 4, 5, 1, 3))
        key = ops.reshape(key, (*stacked, width, area))
        value = ops.transpose(value, (0, 2, 4, 1, 3, 5))
        value = ops.reshape(value, (*stacked, area, width))
        if not self.folded:
            query = query * width**-0.5
        weights = self._softmax(ops.matmul(query, key), axes, (*stacked, area, area))
        x = ops.matmul(weights, value)
        # (N·h, w, heads, a, b, d) -> (N·h, a, w, b, heads, d)
        split = (-1, columns.windows, self.heads, rows.window, columns.window, width)
        x = ops.transpose(ops.reshape(x, split), (0, 3, 1, 4, 2, 5))
        return ops.reshape(x, (batch, rows.length, columns.length, self.channels))

    def _softmax(self, logits, axes, shape):
        """Return the weights of the values, computed in float32 at least."""
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        area = shape[-1]
        table = ops.transpose(ops.cast(self.relative_position_bias_table, dtype))
        bias = ops.take(table, distances(self.window_size, axes), axis=1)
        bias = ops.reshape(bias, (self.heads, area, area))
        logits = ops.cast(logits, dtype)
        if any(axis.shifted for axis in axes):
            bias = bias + ops.cast(mask(axes), dtype)[:, None]
            logits = logits + ops.reshape(bias, (-1, area, area))
        else:
            logits = ops.reshape(logits, (-1, self.heads, area, area)) + bias
        if logits.shape[-1] == 1:
            # Keras' softmax warns of a single position, which a map may have.
            weights = ops.exp(ops.log_softmax(logits, axis=-1))
        else:
            weights = ops.softmax(logits, axis=-1)
        return ops.reshape(ops.cast(weights, self.compute_dtype), shape)

    def multiply_adds(self, input_shape: KnownShape) -> int:
        axes = self._axes(input_shape[1:3])
        positions = math.prod(input_shape[1:3])
        padded = math.prod(axis.length for axis in axes)
        area = math.prod(axis.window for axis in axes)
        mapped = positions if self.folded else padded
        linear = (3 * mapped + positions) * self.channels**2
        return linear + 2 * padded * area * self.channels

    def merged(self) -> Layer:
        """Return the layer with norm and queries' scale in the map to q, k and v."""
        if self.folded:
            return copy(self)
        twin = copy(self, folded=True)
        width = self.channels // self.heads
        scale = np.repeat([width**-0.5, 1.0, 1.0], self.channels)
        kernel, bias = algebra.fold_after(
            host(self.qkv.kernel), host(self.qkv.bias), scale
        )
        kernel, shifted = algebra.fold_before(
            kernel, bias, *affine_terms(self.normalize)
        )
        if twin.outside is not None:
            assign(twin, outside=bias)
            shifted = shifted - bias
        assign(twin.qkv, kernel=kernel, bias=shifted)
        twin.proj.set_weights(self.proj.get_weights())
        table = host(self.relative_position_bias_table)
        assign(twin, relative_position_bias_table=table)
        return twin
