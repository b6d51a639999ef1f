"""What every layer of the library shares: its configuration and its copies.

A layer that has an equivalent, simpler inference form has a method `merged()`
that returns a new, built layer holding the folded weights. That method is the
whole protocol of `kmlp.merge`. Layers that know their cost answer
`multiply_adds(input_shape)`.
"""

import keras
import numpy as np
from keras import ops

from kmlp.errors import InputError


class Layer(keras.layers.Layer):
    """A Keras layer whose configuration is declared once, in `arguments`."""

    arguments: tuple[str, ...] = ()

    def get_config(self):
        own = {name: getattr(self, name) for name in self.arguments}
        for name, value in own.items():
            if isinstance(value, keras.initializers.Initializer):
                own[name] = keras.initializers.serialize(value)
        return {**super().get_config(), **own}

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


def initializer(identifier):
    """A Keras initializer with a random state of its own; `None` stays `None`.

    One initializer object gives every variable of a shape the same draw, so a
    network that hands one to all its layers would start with equal blocks.
    """
    if identifier is None:
        return None
    return keras.initializers.get(identifier).clone()


def host(variable):
    """A variable's value as a float64 NumPy array; `None` stays `None`."""
    if variable is None:
        return None
    return keras.ops.convert_to_numpy(variable.value).astype("float64")


def tensor(variable):
    """A variable's value as a backend tensor; `None` stays `None`."""
    return None if variable is None else keras.ops.convert_to_tensor(variable)


def assign(layer, **values):
    """Sets the named variables of `layer` (attributes) to arrays.

    Raises:
        InputError: a value does not have its variable's shape.
    """
    for name, value in values.items():
        variable = getattr(layer, name)
        if variable is None:
            continue
        value = np.broadcast_to(np.asarray(value), variable.shape)
        variable.assign(value.astype(keras.backend.standardize_dtype(variable.dtype)))


def remade(layer, config):
    """A new layer of the same class from a configuration, built alike, unfilled."""
    twin = layer.__class__.from_config(config)
    if layer.built:
        twin.build_from_config(layer.get_build_config() or {})
        twin.built = True
    return twin


def copy(layer, **changes):
    """A new layer of the same class, built alike, with `changes` to its config.

    The weights are copied unless there are changes; then the caller fills them.
    """
    twin = remade(layer, {**layer.get_config(), **changes})
    if not changes and layer.weights:
        twin.set_weights(layer.get_weights())
    return twin


def like(inputs):
    """A map's shape for `ops.reshape`, its batch as -1 where the rest is known.

    So a graph of known sizes computes no shapes.
    """
    known = tuple(inputs.shape[1:])
    return ops.shape(inputs) if None in known else (-1, *known)


def pair(value, argument):
    """`k` or `(kh, kw)` as a pair of positive integers."""
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2 or any(not isinstance(v, int) or v < 1 for v in values):
        raise InputError(
            f"`{argument}` takes a positive integer or a pair of them. "
            f"Received: {argument}={value!r}"
        )
    return values


def gelu(x):
    """The exact GELU, `x * Phi(x)`, which all five papers use.

    Written with erf: in this form the CPU kernels fuse it into the matrix product
    before it.
    """
    return x * (0.5 * (1.0 + ops.erf(x * 0.5**0.5)))


def activation_function(name):
    """A Keras activation by name; `"gelu"` is the exact one."""
    return gelu if name == "gelu" else keras.activations.get(name)


def drop_path(rate, *, name, dtype=None):
    """A layer that drops whole samples of a residual branch in training.

    Kept samples are scaled up by `1 / (1 - rate)`; Keras' Dropout does this when
    one draw serves all positions and channels.

    Reference: Huang et al., 2016, Deep Networks with Stochastic Depth.
    """
    return keras.layers.Dropout(
        rate, noise_shape=(None, 1, 1, 1), name=name, dtype=dtype
    )


def drop_path_rates(rate, blocks):
    """Rates rising linearly from 0 at the first to `rate` at the last block."""
    if not 0 <= rate < 1:
        raise InputError(
            f"`drop_path_rate` must lie in [0, 1). Received: drop_path_rate={rate}"
        )
    return [rate * i / max(blocks - 1, 1) for i in range(blocks)]
