"""Trees of arrays, batches and sums, as all engines handle them."""

import keras
import numpy as np

from kmlp.errors import InputError


def measurements(task, values):
    """What `Engine.train` returns, from rows of measures, norm and finite."""
    columns = {name: values[:, i] for i, name in enumerate(task.measures)}
    return columns | {"gradient_norm": values[:, -2], "finite": values[:, -1] > 0}


def total(sums):
    """The sum of the sums of batches, float64; they are held one at a time.

    Raises:
        InputError: there are none.
    """
    found = None
    for own in sums:
        own = np.asarray(own, "float64")
        found = own if found is None else found + own
    if found is None:
        raise InputError(
            "There is nothing to validate on. Received: data without a batch"
        )
    return found


def filled(batch, size):
    """A batch whose last row is repeated up to `size` rows."""
    if rows(batch) == size:
        return batch
    return keras.tree.map_structure(
        lambda array: np.concatenate(
            [array, np.repeat(array[-1:], size - len(array), axis=0)]
        ),
        batch,
    )


def cut(batch, size, start=0):
    """`size` rows of a batch."""
    return keras.tree.map_structure(lambda array: array[start : start + size], batch)


def rows(batch):
    """How many rows a tree of arrays has."""
    return len(keras.tree.flatten(batch)[0])
