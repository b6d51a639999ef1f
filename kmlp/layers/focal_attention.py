"""Focal attention, and what it adds to the products of queries and keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.errors import InputError
from kmlp.layers.focal_windows import FocalWindows, WindowPooling, check_focal
from kmlp.layers.initializers import NORMAL, initializer
from kmlp.layers.layer import Layer, assign, copy, host
from kmlp.layers.norms import affine_terms, folded, normalization
from kmlp.layers.window_attention import MASKED
from kmlp.typing import KnownShape, Tensor

# Tables of positions beside the query, around its window, and of pooled windows.
TABLES = (
    "relative_position_bias_table",
    "relative_position_bias_table_to_neighbors",
    "relative_position_bias_table_to_windows",
)


def table_shapes(windows: FocalWindows, heads: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tables that there are, as published.

    Args:
        windows: Windows of the map.
        heads: Number of heads.

    Returns:
        Shapes as `{name: shape}`.
    """
    own, neighbours, pooled = TABLES
    shapes: dict[str, tuple[int, ...]] = {own: ((2 * windows.side - 1) ** 2, heads)}
    if windows.expansion:
        shapes[neighbours] = (heads, windows.area, windows.neighbours)
    if windows.focal_window:
        shapes[pooled] = (heads, (windows.side + windows.focal_window - 1) ** 2)
    return shapes


def position_bias(windows: FocalWindows, tables: Sequence[Any]) -> Tensor:
    """Return what every query adds for every key, the same in every window.

    Args:
        windows: Windows of the map.
        tables: Variables in the order of `TABLES`, `None` where there is none.

    Returns:
        A tensor `(heads, area, keys)`.
    """
    own, neighbours, pooled = tables
    own = ops.transpose(own)
    biases = [_entries(own, windows.own_distances())]
    if neighbours is not None:
        biases.append(ops.convert_to_tensor(neighbours))
    if pooled is not None:
        biases.append(_entries(pooled, windows.pooled_distances()))
    return ops.concatenate(biases, axis=-1) if biases[1:] else biases[0]


def _entries(table, index):
    entries = ops.take(table, index.ravel(), axis=1)
    return ops.reshape(entries, (table.shape[0], *index.shape))


def key_mask(windows: FocalWindows) -> np.ndarray | None:
    """Return what is added for every window and key, `(windows, 1, keys)`.

    `None` where every window sees all of its keys.
    """
    outside = windows.outside()
    if not outside.any():
        return None
    mask = np.zeros((windows.number, 1, windows.keys), "float32")
    mask[:, 0, -outside.shape[1] :] = np.where(outside, MASKED, 0)
    return mask


@keras.saving.register_keras_serializable("kmlp")
class FocalAttention(Layer):
    """Layer norm and multi-head self-attention, fine nearby and coarse farther away.

    The positions of a window attend to each other, to the positions around the
    window, which the map's other end continues, and to whole windows in a larger
    region, each pooled to one position, those beyond the map left out. All are mapped
    to keys and values alike, and each pair of query and key has a learned bias. At
    inference the norm's scale and shift and the scale of the queries are part of that
    map, the biases are one array, and what scale and shift make of a pooled position
    is a vector.

    Args:
        heads: Number of heads.
        window_size: Side of a window. On a map with a side no longer than that,
            windows are as large as that side and see no positions around them.
        focal_window: Side of the region of pooled windows, odd.
        focal_level: Focal level: 2, or 1 for attention without pooled windows.
        expansion: Distance that the positions around a window reach, at most
            `window_size`; 0: none.
        folded: Whether this is the inference form.
        epsilon: Constant of the norm.
        kernel_initializer: Initializer of the linear maps.

    Shapes: `(N, H, W, C)` in and out, H and W known and tiled by the windows.

    Raises:
        InputError: If heads do not divide the channels, a focal window is even, levels
            or expansion are out of range, or the map does not fit.

    Reference: Focal Self-attention for Local-Global Interactions in Vision
    Transformers (Yang et al., 2021), Sect. 3.2, Eq. 1.
    """

    def __init__(
        self,
        heads,
        window_size=7,
        *,
        focal_window=7,
        focal_level=2,
        expansion=3,
        folded=False,
        epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_focal(heads, window_size, focal_window, focal_level, expansion)
        self.normalize = normalization(
            "layer", epsilon=epsilon, affine=not folded, dtype=self.dtype_policy
        )

    def build(self, input_shape: KnownShape) -> None:
        *size, channels = input_shape[1:]
        if channels % self.heads:
            raise InputError(
                f"{self.name}: `heads` must divide the {channels} channels. "
                f"Received: heads={self.heads}"
            )
        if None in size:
            raise InputError(
                f"{self.name}: focal attention needs a known height and width. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.windows = FocalWindows.of(
            size,
            self.window_size,
            expansion=self.expansion,
            focal_window=self.focal_window if self.focal_level > 1 else 0,
        )
        self.normalize.build(input_shape)
        self.qkv = self._dense(3 * channels, "qkv", channels)
        self.proj = self._dense(channels, "proj", channels)
        self.pool: Any = None
        self.pooled_shift: Any = None
        if self.windows.focal_window:
            self.pool = WindowPooling(
                use_bias=not self.folded,
                kernel_initializer=self.kernel_initializer,
                name="pool",
                dtype=self.dtype_policy,
            )
            self.pool.build((None, self.windows.area, channels))
            if self.folded:
                # The weights of pooled keys and values need not add up to one.
                self.pooled_shift = self.add_weight(
                    name="pooled_shift", shape=(2, channels), initializer="zeros"
                )
        self._add_biases()
        self._index, self._mask = self._key_index(), key_mask(self.windows)

    def _key_index(self):
        """Return indices of (position, head) that put heads first; `None`: in order."""
        if self.windows.in_order:
            return None
        heads = np.arange(self.heads, dtype="int32")[:, None]
        return (self.windows.key_index()[:, None] * self.heads + heads).ravel()

    def _add_biases(self):
        """Add the tables in the published shapes, or the folded form's one array."""
        for name in (*TABLES, "position_bias"):
            setattr(self, name, None)
        windows, heads = self.windows, self.heads
        if self.folded:
            shapes = {"position_bias": (heads, windows.area, windows.keys)}
        else:
            shapes = table_shapes(windows, heads)
        for name, shape in shapes.items():
            start = "zeros" if name == TABLES[0] else initializer(NORMAL)
            table = self.add_weight(
                name=name, shape=shape, initializer=start, autocast=False
            )
            setattr(self, name, table)

    def call(self, inputs: Tensor) -> Tensor:
        windows, channels = self.windows, inputs.shape[-1]
        x = windows.split(self.normalize(inputs))
        # Two-dimensional, so that the bias fuses into the product.
        flat = self.qkv(ops.reshape(x, (-1, channels)))
        query, key, value = ops.split(flat, 3, axis=-1)
        if self.pool is not None:
            # (N, h·w, C) -> (N·windows, area, C) -> (N·windows, C)
            pooled = self.pool(ops.reshape(x, (-1, windows.area, channels)))
            _, *pooled = ops.split(self.qkv(pooled), 3, axis=-1)
            if self.folded:
                shifts = (self.pooled_shift[i] for i in range(2))
                pooled = [part + shift for part, shift in zip(pooled, shifts)]
        else:
            pooled = None, None
        if not self.folded:
            query = query * self._scale(channels)
        # (N·windows, area, heads, d) -> (N·windows, heads, area, d)
        depth = channels // self.heads
        query = ops.reshape(query, (-1, windows.area, self.heads, depth))
        query = ops.transpose(query, (0, 2, 1, 3))
        key, value = map(self._seen, (key, value), pooled)
        logits = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
        x = ops.matmul(self._attention(logits), value)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, channels))
        return windows.join(self.proj(x))

    def _seen(self, x, pooled):
        """Return windows' keys or values by head: `(N·windows, heads, keys, d)`."""
        windows, channels = self.windows, x.shape[-1]
        depth = channels // self.heads
        x = ops.reshape(x, (-1, windows.number * windows.area, channels))
        if pooled is not None:
            pooled = ops.reshape(pooled, (-1, windows.number, channels))
            x = ops.concatenate([x, pooled], axis=1)
        if self._index is None:
            x = ops.reshape(x, (-1, windows.keys, self.heads, depth))
            return ops.transpose(x, (0, 2, 1, 3))
        x = ops.reshape(x, (-1, x.shape[1] * self.heads, depth))
        x = ops.take(x, self._index, axis=1)
        return ops.reshape(x, (-1, self.heads, windows.keys, depth))

    def _scale(self, channels):
        return (channels // self.heads) ** -0.5

    def _attention(self, logits):
        """Return the weights of the values; the softmax is in float32 at least."""
        windows = self.windows
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        bias = self.position_bias
        if not self.folded:
            bias = position_bias(windows, self._tables())
        logits = ops.cast(logits, dtype) + ops.cast(bias, dtype)
        if self._mask is not None:
            shape = (-1, windows.number, self.heads * windows.area, windows.keys)
            logits = ops.reshape(logits, shape) + ops.cast(self._mask, dtype)
            logits = ops.reshape(logits, (-1, self.heads, windows.area, windows.keys))
        return ops.cast(ops.softmax(logits, axis=-1), self.compute_dtype)

    def _tables(self):
        return [getattr(self, name) for name in TABLES]

    def multiply_adds(self, input_shape: KnownShape) -> int:
        channels, windows = input_shape[-1], self.windows
        positions = windows.number * windows.area
        mapped = positions * 4 * channels**2
        attended = 2 * positions * windows.keys * channels
        if self.pool is None:
            return mapped + attended
        pooled = positions * channels + windows.number * 3 * channels**2
        return mapped + attended + pooled

    def resize_from(self, layer: FocalAttention, **way: Any) -> None:
        """Take over the biases of a layer alike for a map of another size.

        Raises:
            InputError: If windows differ, or one map alone has neighbours.
        """
        old, new = ([tuple(t.shape) for t in la._own()] for la in (layer, self))
        if old != new:
            raise InputError(
                f"{self.name}: resize() keeps the biases of windows and neighbours, "
                f"and these differ: {_described(layer)}, {_described(self)}. Choose "
                "a size that leaves them as they are, or train at the new one. "
                f"Received: a map of {'x'.join(map(str, self.windows.size))}"
            )
        for mine, theirs in zip(self._own(), layer._own(), strict=True):
            mine.assign(theirs)

    def _own(self):
        return [table for table in self._tables() if table is not None]

    def merged(self) -> Layer:
        """Return the layer with norm and scale in one map, the biases in one array."""
        if self.folded:
            return copy(self)
        kernel = host(self.qkv.kernel)
        channels = kernel.shape[0]
        scale, shift = affine_terms(self.normalize)
        scales = np.ones(3 * channels)
        scales[:channels] = self._scale(channels)
        twin = copy(self, folded=True)
        if self.pool is not None:
            weights = host(self.pool.kernel)
            # Of the shift a pooled position has as much as its weights add up to.
            moved = shift * (weights.sum() - 1) + host(self.pool.bias)
            moved = (moved @ kernel[:, channels:]).reshape(2, channels)
            assign(twin.pool, kernel=weights)
            assign(twin, pooled_shift=moved)
        qkv = folded(self.qkv, before=(scale, shift), after=(scales,))
        assign(twin.qkv, **qkv)
        twin.proj.set_weights(self.proj.get_weights())
        biases = position_bias(self.windows, self._tables())
        assign(twin, position_bias=ops.convert_to_numpy(biases))
        return twin


def _described(layer):
    """Describe a layer's windows in words."""
    windows = layer.windows
    size = "x".join(map(str, windows.size))
    around = "neighbours" if windows.expansion else "no neighbours"
    return f"{windows.side}x{windows.side} with {around} on a map of {size}"
