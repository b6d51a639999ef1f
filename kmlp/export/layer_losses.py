"""Find the layers that lose most when a model is quantised.

One layer at a time is rounded as the quantisation rounds it, everything else staying
in float32, and the change of the outputs is measured.
"""

import contextlib
import dataclasses
import functools
import math
import time

import keras
import numpy as np
import tensorflow as tf

from kmlp.console import progress_bar
from kmlp.keras_internals import flat_layers, own_variables
from kmlp.layers.perceptrons import SetSharingLinear

IMAGES = 32
SECONDS = 40  # for all layers
_NOBODY = -1
# Products, which have a scale per output channel; other constants have one each.
_LINEAR = (
    keras.layers.Dense,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    SetSharingLinear,
)
# Layers without weights that have a range of their own.
_SUMS = (keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply)


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss that one layer causes.

    Attributes:
        layer: Path in the model.
        change: Root mean square of the outputs' change over that of the outputs;
            infinite where they are no longer finite.
    """

    layer: str
    change: float


def layer_losses(model: keras.Model, images: np.ndarray, quantize: str) -> list[Loss]:
    """Return the layers of a model with what each loses, the worst first.

    Kernels are rounded per output channel, to integers of 8 bits or to float16; with
    `"int8"` also other constants and what the layer gives, over the range that it has
    for the images, and with `"dynamic"` what it takes.

    Args:
        model: Float32 model that is converted.
        images: Images `(N, H, W, C)` as it takes them; some are used.
        quantize: Quantisation, `"float16"`, `"dynamic"` or `"int8"`.
    """
    layers = list(_leaves(model, sums=quantize == "int8"))
    which = tf.Variable(_NOBODY, trainable=False)
    with contextlib.ExitStack() as stack:
        for number, layer in enumerate(layers):
            call = functools.partial(_called, layer.call, number, which, quantize)
            layer.call = call
            stack.callback(delattr, layer, "call")
        run = tf.function(lambda x: model(x, training=False))
        images = tf.constant(_affordable(run, images, len(layers)))
        expected = _outputs(run(images))
        found = []
        with progress_bar(len(layers), "layer", desc="looking for the loss") as bar:
            for number, layer in enumerate(layers):
                which.assign(number)
                with _rounded_kernels(layer, quantize):
                    change = _change(_outputs(run(images)), expected)
                found.append(Loss(layer.path or layer.name, change))
                bar.update()
    return sorted(found, key=lambda loss: -loss.change)


def _leaves(model, sums):
    """Yield layers that hold weights of their own, as composites do not, and sums."""
    for layer in flat_layers(model, include_self=False):
        if _own(layer) or (sums and isinstance(layer, _SUMS)):
            yield layer


def _own(layer):
    """Return the float weights that are not a part's."""
    own = own_variables(layer)
    return [variable for variable in own if "float" in variable.dtype]


def _affordable(run, images, layers):
    """Return as many images as the model can be shown once for every layer."""
    images = np.asarray(images[:IMAGES], "float32")
    run(tf.constant(images[:1]))  # traces
    start = time.perf_counter()
    run(tf.constant(images[:1]))
    seconds = time.perf_counter() - start
    return images[: max(1, int(SECONDS / (seconds * max(1, layers))))]


def _called(call, number, which, quantize, inputs, *args, **kwargs):
    """Call a layer, its activations rounded while it is the layer in question."""
    if quantize == "dynamic" and not isinstance(inputs, (list, tuple)):
        inputs = _where(which == number, _rounded_input, inputs)
    outputs = call(inputs, *args, **kwargs)
    if quantize == "int8":
        outputs = _where(which == number, _rounded_output, outputs)
    return outputs


def _where(condition, function, values):
    return keras.tree.map_structure(
        lambda x: tf.cond(condition, lambda: function(x), lambda: x), values
    )


def _rounded_output(x):
    """Round to 8 bits over the range of all values, as an int8 file stores them."""
    low = tf.minimum(tf.reduce_min(x), 0.0)
    high = tf.maximum(tf.reduce_max(x), 0.0)
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high)


def _rounded_input(x):
    """Round to 8 bits over the range of each row, as a dynamic file computes them."""
    step = tf.reduce_max(tf.abs(x), axis=-1, keepdims=True) / 127
    return tf.round(tf.math.divide_no_nan(x, step)) * step


@contextlib.contextmanager
def _rounded_kernels(layer, quantize):
    """Round the layer's own constants for the time of the block."""
    linear = isinstance(layer, _LINEAR)
    # Biases of products have 32 bits, and in dynamic files all but kernels are float.
    every = quantize == "float16" or (quantize == "int8" and not linear)
    kernels = [v for v in _own(layer) if every or (linear and len(v.shape) > 1)]
    before = [np.array(kernel) for kernel in kernels]
    for kernel, value in zip(kernels, before):
        axes = _summed_axes(layer, value.ndim) if linear else None
        kernel.assign(_rounded(value, axes, quantize))
    try:
        yield
    finally:
        for kernel, value in zip(kernels, before):
            kernel.assign(value)


def _rounded(kernel, axes, quantize):
    if quantize == "float16":
        with np.errstate(over="ignore"):
            return kernel.astype("float16").astype("float32")
    step = np.abs(kernel).max(axis=axes, keepdims=True) / 127
    return np.round(kernel / np.where(step == 0, 1, step)) * step


def _summed_axes(layer, rank):
    """Return the axes of a kernel that share a scale: what an output sums over."""
    if isinstance(layer, SetSharingLinear):
        return (-1,)  # (S, output position, position)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return (0, 1)  # (h, w, C, 1)
    return tuple(range(rank - 1))


def _outputs(outputs):
    flat = [np.asarray(x, "float64").ravel() for x in keras.tree.flatten(outputs)]
    return np.concatenate(flat)


def _change(actual, expected):
    if not np.isfinite(actual).all():
        return math.inf
    scale = max(math.sqrt((expected**2).mean()), 1e-30)
    return math.sqrt(((actual - expected) ** 2).mean()) / scale
