"""Activations by name."""

import keras
from keras import ops


def gelu(x):
    """The exact GELU, `x * Phi(x)`, which all five papers use.

    Written with erf: in this form the CPU kernels fuse it into the matrix product
    before it.
    """
    return x * (0.5 * (1.0 + ops.erf(x * 0.5**0.5)))


def activation_function(name):
    """A Keras activation by name; `"gelu"` is the exact one."""
    return gelu if name == "gelu" else keras.activations.get(name)
