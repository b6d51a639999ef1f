"""Equal ranges for the channels of a residual stream, for files of 8 bits.

An int8 tensor has one step for all channels. In a trained ResMLP a few channels of the
residual stream are tens of times larger than the rest, and what a block adds to the
others is less than half a step and is rounded away, block after block. Between the
residual additions nothing but linear maps touches the stream once norms are merged:
its channels may be multiplied by any factors where the maps that write it do so too,
and those that read it divide by them.
"""

import keras
import numpy as np

from kmlp.layers import ChannelMLP, ClassifierHead, CrossPatch, PatchEmbed
from kmlp.layers.layer import assign, host
from kmlp.rewriting import rewrite

# Channels are brought to a common range where they lie within this factor of it.
LARGEST_FACTOR = 1e3
_PASSING = (keras.layers.InputLayer, keras.layers.Dropout, keras.layers.Add)


def equalised(model, images):
    """A model with a residual stream of equal channels.

    Args:
        model: the float32 model that is converted; it is left untouched.
        images: `(N, H, W, C)` as it takes them, which show the ranges.

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
    """Whether one embedding starts a stream that only merged layers read and write."""
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
    """What brings the largest magnitude of every channel to that of the largest."""
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
