"""Models of which only the shapes are wanted."""

import contextlib

import keras
import ml_dtypes
import numpy as np
from keras.src.backend.common import global_state

_WAITING = "uninitialized_variables"  # Keras' name for them


@contextlib.contextmanager
def shapes_only():
    """Inside, models are built without drawing their weights: to be counted, not run.

    Drawing values takes most of the time that a large network takes to build. Keras
    keeps such weights to draw them at the end of a later scope, with all their memory;
    here they are forgotten. Weights that are read, as merging reads them, are ones, and
    values that are assigned to them are dropped.
    """
    waiting = list(global_state.get_global_attribute(_WAITING) or [])
    try:
        with _Shapes(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(_WAITING, waiting)


class _Shapes(keras.StatelessScope):
    """A scope in which no weight has memory."""

    def get_current_value(self, variable):
        name = keras.backend.standardize_dtype(variable.dtype)
        dtype = getattr(ml_dtypes, name, name)
        ones = np.broadcast_to(np.ones((), dtype), variable.shape)
        return keras.ops.convert_to_tensor(ones)

    def add_update(self, update):
        pass
