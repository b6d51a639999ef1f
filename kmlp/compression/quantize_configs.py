"""What of each of a twin's layers is quantised, for tfmot.

TFLite keeps the scale of what only moves: data is quantised where it is computed. The
parts of a set-sharing FC are quantised behind the stack that joins them, with one
scale, as its operation demands.
"""

import contextlib

import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras.quant_ops import (
    MovingAvgQuantize,
)
from tensorflow_model_optimization.quantization.keras import QuantizeConfig, quantizers

from kmlp.compression.legacy_layers import (
    Reshape,
    Scale,
    Shift,
    Stack,
    Transpose,
    Unstack,
)

_BOUNDED = ("sigmoid", "softmax", "tanh")


class Range(quantizers.MovingAverageQuantizer):
    """Fake quantisation within a range that follows what is seen in training.

    tfmot's own forgets the range it begins with, -6 to 6, over thousands of steps.

    Attributes:
        decay: share of the range that a step leaves; 0 takes what it sees.
    """

    decay = 0.99

    def __init__(self):
        super().__init__(
            num_bits=8, per_axis=False, symmetric=False, narrow_range=False
        )

    def __call__(self, inputs, training, weights, **kwargs):
        return MovingAvgQuantize(
            inputs,
            weights["min_var"],
            weights["max_var"],
            ema_decay=self.decay,
            is_training=training,
        )

    def get_config(self):
        return {}


@contextlib.contextmanager
def taken_ranges():
    """While the block runs, ranges become those of what is seen."""
    decay, Range.decay = Range.decay, 0.0
    try:
        yield
    finally:
        Range.decay = decay


class Config(QuantizeConfig):
    """Quantises the named weights, the activation and the output of a layer.

    Args:
        weights: names of weights.
        per_output: whether a weight has a scale for each of its outputs, its last
            axis, and no zero point.
        activation: whether the layer's `activation` quantises its output.
        output: whether the output is quantised.
    """

    def __init__(self, weights=(), per_output=False, activation=False, output=False):
        self.weights = tuple(weights)
        self.per_output, self.activation, self.output = per_output, activation, output

    def get_weights_and_quantizers(self, layer):
        quantizer = quantizers.LastValueQuantizer(
            num_bits=8,
            per_axis=self.per_output,
            symmetric=self.per_output,
            narrow_range=self.per_output,
        )
        return [(getattr(layer, name), quantizer) for name in self.weights]

    def get_activations_and_quantizers(self, layer):
        return [(layer.activation, Range())] if self.activation else []

    def set_quantize_weights(self, layer, quantize_weights):
        for name, weight in zip(self.weights, quantize_weights, strict=True):
            setattr(layer, name, weight)

    def set_quantize_activations(self, layer, quantize_activations):
        if self.activation:
            (layer.activation,) = quantize_activations

    def get_output_quantizers(self, layer):
        return [Range()] if self.output else []

    def get_config(self):
        return {
            "weights": list(self.weights),
            "per_output": self.per_output,
            "activation": self.activation,
            "output": self.output,
        }


def config_of(layer, *, joined, round_kernels):
    """The `Config` of a twin's layer.

    Args:
        layer: of a twin.
        joined: whether it is one of a set-sharing FC's parts.
        round_kernels: whether kernels are quantised, or as they are.
    """
    if isinstance(layer, tf_keras.layers.Activation):
        # TFLite fixes the range of those that have one.
        return Config(output=layer.activation.__name__ not in _BOUNDED)
    if isinstance(layer, tf_keras.layers.Dense):
        kernels = ["kernel"] if round_kernels else []
        return Config(kernels, per_output=True, activation=not joined)
    return {
        Reshape: Config(),
        Transpose: Config(),
        Unstack: Config(),
        Stack: Config(output=True),
        tf_keras.layers.ZeroPadding2D: Config(),
        tf_keras.layers.Cropping2D: Config(),
        Scale: Config(["scale"], output=True),
        Shift: Config(["shift"], output=True),
        tf_keras.layers.Add: Config(output=True),
        tf_keras.layers.Multiply: Config(output=True),
        tf_keras.layers.GlobalAveragePooling2D: Config(output=True),
    }[type(layer)]
