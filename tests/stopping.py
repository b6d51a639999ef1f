"""What ends a data set that cannot be read."""

import pytest
import tensorflow as tf

from kmlp.data.reading import reason


def stopped(dataset):
    """The `InputError` that going through a data set ends with.

    The iterator goes here: left to the garbage collector it might be collected on a
    thread of its own, which would wait for itself, and nothing be collected any more.
    """
    with pytest.raises(tf.errors.OpError) as raised:
        for _ in dataset:
            pass
    found = reason(raised.value)
    del raised  # its traceback holds the iterator
    return found
