"""Parameters, multiply-adds, activations and memory, per layer, stage and in total."""

import dataclasses
import math

import keras

from kmlp.analysis.live_memory import live_bytes, weight_bytes
from kmlp.analysis.stages import StageProfile, stage_rows
from kmlp.analysis.tracing import trace
from kmlp.console import aligned
from kmlp.errors import InputError

# Keras' own layers whose kernel is applied once per output position.
_LINEAR = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


@dataclasses.dataclass(frozen=True)
class LayerProfile:
    """One call of one layer.

    Attributes:
        name: of the layer, with the nested models that it is part of.
        kind: its class.
        output_shape: of its first output.
        trainable, non_trainable: numbers of parameters.
        macs: multiply-adds for one image.
        activations: values that its matrix products and convolutions put out for one
            image.
        memory: bytes of activations that are alive at the peak while it runs, also
            those that only later layers read.
    """

    name: str
    kind: str
    output_shape: tuple
    trainable: int
    non_trainable: int
    macs: int
    activations: int = 0
    memory: int = 0


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a model needs, for one image unless said otherwise.

    Attributes:
        trainable, non_trainable: numbers of parameters; moving statistics are
            non-trainable.
        macs: multiply-adds of all linear maps and convolutions.
        layers: a `LayerProfile` per call, in order of the graph; a layer's
            parameters are counted at its first call.
        activations: values that all matrix products and convolutions put out.
        weight_bytes: of the weights in the dtype in which they are held.
        peak_activation_bytes: of activations that are alive at once in inference on
            `batch` images, at most; `kmlp.analysis.live_memory` says what is counted.
        stages: a `StageProfile` of the stem, of each stage and of the head; one row
            where the model has no `pyramid_outputs`.
        batch: images that memory is counted for.
    """

    trainable: int
    non_trainable: int
    macs: int
    layers: tuple[LayerProfile, ...]
    activations: int = 0
    weight_bytes: int = 0
    peak_activation_bytes: int = 0
    stages: tuple[StageProfile, ...] = ()
    batch: int = 1

    @property
    def peak_memory(self):
        """Bytes that inference holds at once: weights and live activations."""
        return self.weight_bytes + self.peak_activation_bytes

    def __str__(self):
        header = ("layer", "kind", "output", "trainable", "non-trainable", "MACs")
        header += ("activations", "memory (MB)")
        rows = [
            (row.name, row.kind, "x".join(map(str, row.output_shape[1:])))
            + _figures(row, row.memory)
            for row in self.layers
            if row.trainable or row.non_trainable or row.macs
        ]
        total = ("total", "", "", *_figures(self, self.peak_activation_bytes))
        return aligned([header, *rows, total], left=3)


def _figures(row, memory):
    counts = (row.trainable, row.non_trainable, row.macs, row.activations)
    return (*(f"{count:,}" for count in counts), f"{memory / 1e6:.2f}")


def profile(model, input_shape=None, *, batch=1):
    """Counts what a model needs.

    Linear maps and convolutions are counted as multiply-adds, as the papers do; norms,
    activation functions, pooling and additions are not. Activations are what those
    maps put out, the measure of RegNet (Radosavovic et al., Designing Network Design
    Spaces, 2020, Sect. 3.4) and of the lists of other libraries. Nested models are
    counted layer by layer. Nothing is computed: only shapes are followed.

    Args:
        model: a functional or `Sequential` `keras.Model`, train form or merged.
        input_shape: `(H, W, C)` at which to count; `None`: the model's own.
        batch: how many images go through at once, for the memory.

    Returns:
        A `Profile`; printed, a table.

    Raises:
        InputError: the model's sizes are unknown and none are given, the model has no
            graph, or `batch` is no positive integer.
    """
    if not hasattr(model, "operations") and not isinstance(model, keras.Sequential):
        raise InputError(
            "profile() reads a functional or Sequential model's graph. "
            f"Received: {model!r}"
        )
    if not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch must be 1, 2, … images. Received: batch={batch!r}")
    shape = (
        tuple(model.inputs[0].shape[1:]) if input_shape is None else tuple(input_shape)
    )
    if None in shape:
        raise InputError(
            "The model takes images of any size: pass input_shape=(height, width, "
            f"channels) to count at one. Received: input_shape={shape}"
        )
    traced = trace(model, shape, batch=batch)
    memory = live_bytes(traced)
    rows = tuple(_rows(traced, memory, batch))
    return Profile(
        trainable=count_parameters(model.trainable_weights),
        non_trainable=count_parameters(model.non_trainable_weights),
        macs=sum(row.macs for row in rows),
        layers=rows,
        activations=sum(row.activations for row in rows),
        weight_bytes=weight_bytes(model),
        peak_activation_bytes=max(memory, default=0),
        stages=stage_rows(model, rows, traced.ends),
        batch=batch,
    )


def _rows(traced, memory, batch):
    seen = set()
    for call, bytes_alive in zip(traced.calls, memory):
        layer, shapes = call.layer, call.input_shapes
        first = call.name not in seen
        seen.add(call.name)
        yield LayerProfile(
            name=call.name,
            kind=type(layer).__name__,
            output_shape=call.output_shape,
            trainable=count_parameters(layer.trainable_weights) if first else 0,
            non_trainable=count_parameters(layer.non_trainable_weights) if first else 0,
            macs=_macs(
                layer, shapes if len(shapes) > 1 else shapes[0], call.output_shape
            ),
            activations=traced.put_out(call) // batch,
            memory=bytes_alive,
        )


def _macs(layer, input_shape, output_shape):
    if hasattr(layer, "multiply_adds"):
        return layer.multiply_adds(input_shape)
    if isinstance(layer, _LINEAR):
        return math.prod(output_shape[1:-1]) * math.prod(layer.kernel.shape)
    parts = [part for part in layer._layers if part.built]
    # A block of somebody's own: its parts, at the shapes they were built for.
    return sum(_part_macs(part) for part in parts)


def _part_macs(part):
    shape = (part.get_build_config() or {}).get("input_shape")
    if shape is None:
        return 0
    return _macs(part, tuple(shape), part.compute_output_shape(shape))


def count_parameters(variables):
    """The number of values in variables."""
    return sum(math.prod(variable.shape) for variable in variables)
