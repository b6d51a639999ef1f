"""Spell the same mathematics in the operations that quantisers want to see."""

import contextlib
import functools
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from kmlp.keras_internals import flat_layers
from kmlp.layers.channel_mlp import ChannelMLP
from kmlp.layers.head import ClassifierHead
from kmlp.layers.layer import assign, host, replaced
from kmlp.layers.patch_embed import PatchEmbed
from kmlp.layers.patch_mixing import CrossPatch
from kmlp.layers.perceptrons import SetSharingLinear
from kmlp.merging import rewrite


@contextlib.contextmanager
def spelled_for_integers(model: keras.Model, *, norms: bool = True) -> Iterator[None]:
    """Let a model's layers be traced so in the block that their kernels quantise well.

    Args:
        model: Model whose layers are changed for the time of the block.
        norms: Whether layer norms are spelled without squares too, as TFLite wants.
    """
    with contextlib.ExitStack() as stack:

        def replace(layer, name, value):
            stack.enter_context(replaced(layer, name, value))

        for layer in flat_layers(model):
            if isinstance(layer, SetSharingLinear):
                unrolled = functools.partial(_unrolled, layer)
                replace(layer, "_fully_connected", unrolled)
            if norms and _is_layer_norm(layer):
                replace(layer, "call", functools.partial(_layer_norm, layer))
        yield


def _unrolled(layer, blocks):
    """Call `SetSharingLinear` as one fully connected operation per share-set.

    A batched matrix product has one quantisation scale for the kernels of all
    share-sets, XNNPACK mishandles the zero points that TFLite's quantizer gives it, and
    NNCF cannot correct its bias; a fully connected operation has a scale per output
    position.
    """
    length, sets = layer.partition.length, layer.share_sets
    groups = layer.partition.block_shape[-1] // sets
    # (B, h, w, C) -> (B, hw, C/S, S) -> (S, B, C/S, hw)
    x = ops.reshape(blocks, (-1, length, groups, sets))
    x = ops.transpose(x, (3, 0, 2, 1))
    outputs = []
    for index, rows in enumerate(ops.unstack(x, sets, axis=0)):
        kernel = ops.transpose(layer.kernel[index])
        y = ops.matmul(ops.reshape(rows, (-1, length)), kernel)
        outputs.append(y if layer.bias is None else y + layer.bias[index])
    x = ops.reshape(ops.stack(outputs, axis=0), (sets, -1, groups, length))
    return ops.transpose(x, (1, 3, 2, 0))  # (B, hw, C/S, S)


def _is_layer_norm(layer):
    """Return whether a layer is a layer norm over its last axis."""
    norm = isinstance(layer, keras.layers.LayerNormalization)
    return norm and layer.axis == [-1] and not layer.rms_scaling


def _layer_norm(layer, inputs):
    """Call a layer norm so that its integer form is all XNNPACK's.

    Keras' own spelling becomes a SQUARED_DIFFERENCE, whose int8 form is a plain loop
    that takes as long as all the matrix products, and a NEG, which stays float.
    """
    x = inputs - ops.mean(inputs, axis=-1, keepdims=True)
    variance = ops.mean(x * x, axis=-1, keepdims=True)
    x = x * ops.rsqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        x = x * layer.gamma
    return x if layer.beta is None else x + layer.beta


# Channels are brought to a common range where they lie within this factor of it.
LARGEST_FACTOR = 1e3
_PASSING = (keras.layers.InputLayer, keras.layers.Dropout, keras.layers.Add)


def equalised(model: keras.Model, images: np.ndarray) -> keras.Model:
    """Return a model with a residual stream of equal channels.

    Args:
        model: Float32 model that is converted; it is left untouched.
        images: Images `(N, H, W, C)` as it takes them, which show the ranges.

    Returns:
        An equal model where this one's stream is read and written by linear maps
        alone, as in a merged ResMLP; any other model itself.
    """
    if not _linear_stream(model):
        return model
    factors = _factors(model, images)
    twin = rewrite(model, lambda layer: None)
    for layer in twin.layers:
        if isinstance(layer, PatchEmbed):
            _write(layer.dense, factors)
        elif isinstance(layer, CrossPatch):
            # Its FC mixes patches and keeps channels apart: only the shift is its own.
            assign(layer, shift=host(layer.shift) * factors)
        elif isinstance(layer, ChannelMLP):
            _read(layer.fc1, factors)
            _write(layer.fc2, factors)
        elif isinstance(layer, ClassifierHead):
            _read(layer.dense, factors)
    return twin


def _linear_stream(model):
    """Return whether only merged layers read and write one embedding's stream."""
    layers = getattr(model, "layers", [])
    embeddings = [layer for layer in layers if isinstance(layer, PatchEmbed)]
    return (
        len(embeddings) == 1
        and any(isinstance(layer, ClassifierHead) for layer in layers)
        and isinstance(model.output, keras.KerasTensor)
        and all(map(_is_linear, layers))
    )


def _is_linear(layer):
    if isinstance(layer, PatchEmbed):
        return layer.normalize is None and layer.activation is None
    if isinstance(layer, CrossPatch):
        return layer.normalize is None and layer.folded
    if isinstance(layer, ChannelMLP):
        parts = (layer.normalize, layer.norm1, layer.norm2, layer.gamma)
        return all(part is None for part in parts)
    if isinstance(layer, ClassifierHead):
        return layer.normalize is None
    return isinstance(layer, _PASSING)


def _factors(model, images):
    """Return what brings every channel's largest magnitude to the largest of all."""
    stream = [
        layer.output
        for layer in model.layers
        if isinstance(layer, (PatchEmbed, keras.layers.Add))
    ]
    outputs = keras.Model(model.inputs, stream).predict(images, verbose=0)
    largest = np.max([np.abs(x).max(axis=(0, 1, 2)) for x in outputs], axis=0)
    largest = np.maximum(largest, largest.max() / LARGEST_FACTOR)
    return (largest.max() / largest).astype("float64")


def _write(dense, factors):
    bias = None if dense.bias is None else host(dense.bias) * factors
    assign(dense, kernel=host(dense.kernel) * factors, bias=bias)


def _read(dense, factors):
    assign(dense, kernel=host(dense.kernel) / factors[:, None])
