"""What focal attention adds to the products of queries and keys."""

import numpy as np
from keras import ops

from kmlp.layers.windows import MASKED

# Of positions beside the query, around its window, and of pooled windows.
TABLES = (
    "relative_position_bias_table",
    "relative_position_bias_table_to_neighbors",
    "relative_position_bias_table_to_windows",
)


def table_shapes(windows, heads):
    """The tables that there are, in the published shapes.

    Args:
        windows: `kmlp.layers.focal_windows.FocalWindows`.
        heads: number of heads.

    Returns:
        `{name: shape}`.
    """
    own, neighbours, pooled = TABLES
    shapes = {own: ((2 * windows.side - 1) ** 2, heads)}
    if windows.expansion:
        shapes[neighbours] = (heads, windows.area, windows.neighbours)
    if windows.focal_window:
        shapes[pooled] = (heads, (windows.side + windows.focal_window - 1) ** 2)
    return shapes


def position_bias(windows, tables):
    """What every query adds for every key, window by window the same.

    Args:
        windows: `kmlp.layers.focal_windows.FocalWindows`.
        tables: variables in the order of `TABLES`, `None` where there is none.

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


def key_mask(windows):
    """What is added for every window and key, `(windows, 1, keys)`.

    `None` where every window sees all of its keys.
    """
    outside = windows.outside()
    if not outside.any():
        return None
    mask = np.zeros((windows.number, 1, windows.keys), "float32")
    mask[:, 0, -outside.shape[1] :] = np.where(outside, MASKED, 0)
    return mask
