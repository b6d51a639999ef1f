"""The same mathematics in the operations that TFLite wants to see."""

import contextlib
import functools

import keras
from keras import ops

from kmlp.layers import SetSharingLinear
from kmlp.layers.activations import gelu


@contextlib.contextmanager
def spelled_for_tflite(model, *, integers):
    """While the block traces a model, its layers use TFLite's spelling.

    Args:
        model: its layers are changed for the time of the block.
        integers: whether the file's weights are integers, which want one fully
            connected operation per share-set and layer norms without squares.
    """
    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers():
            # The converter knows GELU in one spelling; in the one that is fast
            # elsewhere it sees an Erf, which TFLite lacks.
            if getattr(layer, "activate", None) is gelu:
                _replace(stack, layer, "activate", keras.activations.gelu)
            if integers and isinstance(layer, SetSharingLinear):
                unrolled = functools.partial(_unrolled, layer)
                _replace(stack, layer, "_fully_connected", unrolled)
            if integers and _is_layer_norm(layer):
                _replace(stack, layer, "call", functools.partial(_layer_norm, layer))
        yield


def _replace(stack, layer, name, value):
    own = vars(layer).get(name)
    setattr(layer, name, value)
    if own is None:
        stack.callback(delattr, layer, name)
    else:
        stack.callback(setattr, layer, name, own)


def _unrolled(layer, blocks):
    """`SetSharingLinear` as one fully connected operation per share-set.

    A batched matrix product has one quantisation scale for the kernels of all
    share-sets, and XNNPACK mishandles the zero points that the quantizer gives it;
    a fully connected operation has a scale per output position.
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
    """Whether a layer is a layer norm over its last axis."""
    norm = isinstance(layer, keras.layers.LayerNormalization)
    return norm and layer.axis == [-1] and not layer.rms_scaling


def _layer_norm(layer, inputs):
    """A layer norm whose integer form is all XNNPACK's.

    Keras' own spelling becomes a SQUARED_DIFFERENCE, whose int8 form is a plain loop
    that takes as long as all the matrix products, and a NEG, which stays float.
    """
    x = inputs - ops.mean(inputs, axis=-1, keepdims=True)
    variance = ops.mean(x * x, axis=-1, keepdims=True)
    x = x * ops.rsqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        x = x * layer.gamma
    return x if layer.beta is None else x + layer.beta
