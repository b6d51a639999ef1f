"""Tell tfmot what of each of a twin's layers is quantised.

TFLite keeps the scale of what only moves: data is quantised where it is computed. The
parts of a set-sharing FC are quantised behind the stack that joins them, with one
scale, as its operation demands.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras.quant_ops import (
    MovingAvgQuantize,
)
from tensorflow_model_optimization.quantization.keras import QuantizeConfig, quantizers

from kmlp.compression.twin_builder import (
    Reshape,
    Scale,
    Shift,
    Stack,
    Transpose,
    Unstack,
)
from kmlp.typing import Config as Settings

_BOUNDED = ("sigmoid", "softmax", "tanh")


class Range(quantizers.MovingAverageQuantizer):
    """Fake quantisation within a range that follows what is seen in training.

    tfmot's own forgets the range it begins with, -6 to 6, over thousands of steps.

    Attributes:
        decay: Share of the range that a step leaves; 0 takes what it sees.
    """

    decay = 0.99

    def __init__(self) -> None:
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

    def get_config(self) -> Settings:
        return {}


@contextlib.contextmanager
def taken_ranges() -> Iterator[None]:
    """Let ranges become those of what is seen while the block runs."""
    decay, Range.decay = Range.decay, 0.0
    try:
        yield
    finally:
        Range.decay = decay


@dataclasses.dataclass(eq=False)
class Config(QuantizeConfig):
    """The quantisation of a layer's named weights, activation and output.

    Attributes:
        weights: Names of weights.
        per_output: Whether a weight has a scale for each of its outputs, its last
            axis, and no zero point.
        activation: Whether the layer's `activation` quantises its output.
        output: Whether the output is quantised.
    """

    weights: tuple[str, ...] = ()
    per_output: bool = False
    activation: bool = False
    output: bool = False

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple]:
        quantizer = quantizers.LastValueQuantizer(
            num_bits=8,
            per_axis=self.per_output,
            symmetric=self.per_output,
            narrow_range=self.per_output,
        )
        return [(getattr(layer, name), quantizer) for name in self.weights]

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple]:
        return [(layer.activation, Range())] if self.activation else []

    def set_quantize_weights(self, layer: Any, quantize_weights: list) -> None:
        for name, weight in zip(self.weights, quantize_weights, strict=True):
            setattr(layer, name, weight)

    def set_quantize_activations(self, layer: Any, quantize_activations: list) -> None:
        if self.activation:
            (layer.activation,) = quantize_activations

    def get_output_quantizers(self, layer: Any) -> list[Range]:
        return [Range()] if self.output else []

    def get_config(self) -> Settings:
        return dataclasses.asdict(self)


def config_of(layer: Any, *, joined: bool, round_kernels: bool) -> Config:
    """Return the `Config` of a twin's layer.

    Args:
        layer: Layer of a twin.
        joined: Whether it is one of a set-sharing FC's parts.
        round_kernels: Whether kernels are quantised, or left as they are.
    """
    if isinstance(layer, tf_keras.layers.Activation):
        # TFLite fixes the range of those that have one.
        return Config(output=layer.activation.__name__ not in _BOUNDED)
    if isinstance(layer, tf_keras.layers.Dense):
        kernels = ("kernel",) if round_kernels else ()
        return Config(kernels, per_output=True, activation=not joined)
    weights, output = _QUANTIZED[type(layer)]
    return Config(weights, output=output)


# Type of layer -> the weights that are quantised, and whether its output is.
_QUANTIZED: dict[type, tuple[tuple[str, ...], bool]] = {
    Reshape: ((), False),
    Transpose: ((), False),
    Unstack: ((), False),
    Stack: ((), True),
    Scale: (("scale",), True),
    Shift: (("shift",), True),
    tf_keras.layers.ZeroPadding2D: ((), False),
    tf_keras.layers.Cropping2D: ((), False),
    tf_keras.layers.Add: ((), True),
    tf_keras.layers.Multiply: ((), True),
    tf_keras.layers.GlobalAveragePooling2D: ((), True),
}
