"""Models of which only the shapes are wanted."""

import contextlib

import keras
from keras.src.backend.common import global_state

_WAITING = "uninitialized_variables"  # Keras' name for them


@contextlib.contextmanager
def shapes_only():
    """Inside, models are built without drawing their weights: to be counted, not run.

    Drawing values takes most of the time that a large network takes to build. Keras
    keeps such weights to draw them at the end of a later scope, with all their memory;
    here they are forgotten.
    """
    waiting = list(global_state.get_global_attribute(_WAITING) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(_WAITING, waiting)
