"""Leaving the scope of a distribution strategy."""

import concurrent.futures
import functools

import keras
import tensorflow as tf

from kmlp.errors import InputError
from kmlp.keras_internals import flat_layers
from kmlp.layers.layer import remade
from kmlp.merging import rewrite


def outside_strategy(function):
    """Runs a function outside the caller's `tf.distribute` scope, if there is one.

    Variables made within a scope are mirrored, and a graph over mirrored variables
    runs nowhere else. A scope belongs to its thread, so another thread is outside.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        if not tf.distribute.has_strategy():
            return function(*args, **kwargs)
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            return executor.submit(function, *args, **kwargs).result()

    return call


def in_float32(model):
    """The model with every layer in float32; the model itself if it is so already.

    Artifacts are float32: bfloat16 and float16 are slow or missing where they run,
    and the converter to TFLite does not take mixed precision.

    Args:
        model: a built `keras.Model`, nested models and merged ones included; it is
            left untouched.

    Raises:
        InputError: a layer computes in another precision whatever its config says.
    """
    if not _others(model):
        return model
    twin = rewrite(model, _rebuilt)
    for layer in flat_layers(twin):
        if isinstance(layer, keras.Model):
            layer.dtype_policy = "float32"
    if others := _others(twin):
        raise InputError(
            "These layers keep their own precision; build them with the `dtype` that "
            "their config names, so that they can be rebuilt in float32. "
            f"Received: {', '.join(others)}"
        )
    return twin


def _others(model):
    """Paths of the layers that compute or keep weights in another float type."""
    return [
        layer.path or layer.name
        for layer in flat_layers(model)
        if not isinstance(layer, keras.layers.InputLayer)
        and not _is_float32(layer.dtype_policy)
    ]


def _is_float32(policy):
    types = (policy.compute_dtype, policy.variable_dtype)
    return all(t == "float32" or "float" not in str(t) for t in types)


def _rebuilt(layer):
    config = layer.get_config()
    retyped = _retyped(config)
    if retyped == config:
        return None
    twin = remade(layer, retyped)
    if layer.weights:
        twin.set_weights(layer.get_weights())
    return twin


def _retyped(value, key=None):
    """A config in float32; wrappers hold the configs of what they wrap."""
    if key == "dtype" and value is not None:
        policy = keras.dtype_policies.get(value)
        return value if _is_float32(policy) else "float32"
    if isinstance(value, dict):
        return {k: _retyped(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_retyped(v) for v in value]
    return value
