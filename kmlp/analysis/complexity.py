"""Count what a model needs: parameters, multiply-adds, activations and memory."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import ml_dtypes
import numpy as np

from kmlp.analysis.live_memory import live_bytes, weight_bytes
from kmlp.analysis.maps import graph_of, ordered_nodes
from kmlp.analysis.tracing import trace
from kmlp.console import aligned
from kmlp.errors import InputError, check_positive
from kmlp.keras_internals import global_state

_WAITING = "uninitialized_variables"  # Keras' name for them


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Build models inside without drawing their weights: to be counted, not run.

    Drawing values takes most of the time that a large network takes to build. Keras
    keeps such weights to draw them at the end of a later scope, with all their memory;
    here they are forgotten. Weights that are read, as merging reads them, are ones, and
    values that are assigned to them are dropped.
    """
    waiting = list(global_state.get_global_attribute(_WAITING) or [])
    try:
        with _Shapes(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(_WAITING, waiting)


class _Shapes(keras.StatelessScope):
    """A scope in which no weight has memory."""

    def get_current_value(self, variable: Any) -> Any:
        name = keras.backend.standardize_dtype(variable.dtype)
        dtype = getattr(ml_dtypes, name, name)
        ones = np.broadcast_to(np.ones((), dtype), variable.shape)
        return keras.ops.convert_to_tensor(ones)

    def add_update(self, update: Any) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class StageProfile:
    """The joint needs of one stage's layers.

    Attributes:
        name: Name of the stage: `"stem"`, a level of the pyramid (`"P2"`: its stride is
            2^2), `"head"`; `"stem (P2)"` where the first level is what the stem puts
            out; the model's own name where it has no pyramid.
        output_shape: Shape of its last layer's output.
        trainable, non_trainable, macs, activations: Sums over its layers.
        memory: Largest of its layers'.
    """

    name: str
    output_shape: tuple
    trainable: int
    non_trainable: int
    macs: int
    activations: int
    memory: int


def _stages(model, rows, ends):
    """Return the rows of layers gathered by stage.

    The stem are the layers up to the first map of the size of the first level, a stage
    those from there, or from the end of the stage before, to its level's map; what
    makes a map smaller belongs to the stage that follows. The rest is the head.

    Args:
        model: With or without `pyramid_outputs`.
        rows: Rows of all calls, `LayerProfile`s.
        ends: How many calls have begun once each node of the model's graph has run.

    Returns:
        A tuple of `StageProfile`s that hold every row once.
    """
    bounds = _bounds(model, rows, ends)
    return tuple(
        StageProfile(
            name=name,
            output_shape=rows[end - 1].output_shape,
            **{
                column: sum(getattr(row, column) for row in rows[start:end])
                for column in ("trainable", "non_trainable", "macs", "activations")
            },
            memory=max(row.memory for row in rows[start:end]),
        )
        for (name, end), (_, start) in zip(bounds, [("", 0), *bounds])
        if end > start
    )


def _bounds(model, rows, ends):
    """Return the stages' names and the number of rows up to the end of each."""
    pyramid = getattr(model, "pyramid_outputs", None)
    if not pyramid or not rows:
        return [(model.name, len(rows))]
    graph = graph_of(model)
    after = {
        id(tensor): end
        for node, end in zip(ordered_nodes(graph), ends, strict=True)
        for tensor in node.outputs
    }
    levels = sorted((after[id(tensor)], name) for name, tensor in pyramid.items())
    size = rows[levels[0][0] - 1].output_shape[1:3]
    stem = next(i for i, row in enumerate(rows, 1) if row.output_shape[1:3] == size)
    first, level = levels[0]
    return [
        ("stem" if stem < first else f"stem ({level})", stem),
        *((name, end) for end, name in levels),
        ("head", len(rows)),
    ]


# Keras' own layers whose kernel is applied once per output position.
_LINEAR = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


@dataclasses.dataclass(frozen=True)
class LayerProfile:
    """One call of one layer.

    Attributes:
        name: Name of the layer, with the nested models that it is part of.
        kind: Name of its class.
        output_shape: Shape of its first output.
        trainable, non_trainable: Numbers of parameters.
        macs: Multiply-adds for one image.
        activations: Values that its matrix products and convolutions put out for one
            image.
        memory: Bytes of activations that are alive at the peak while it runs, also
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
    """The needs of a model, for one image unless stated otherwise.

    Attributes:
        trainable, non_trainable: Numbers of parameters; moving statistics are
            non-trainable.
        macs: Multiply-adds of all linear maps and convolutions.
        layers: Row per call, in order of the graph; a layer's parameters are counted at
            its first call.
        activations: Values that all matrix products and convolutions put out.
        weight_bytes: Bytes of the weights in the dtype in which they are held.
        peak_activation_bytes: Bytes of activations that are alive at once in inference
            on `batch` images, at most; `kmlp.analysis.live_memory` says what is
            counted.
        stages: Rows of the stem, of each stage and of the head; one row where the model
            has no `pyramid_outputs`.
        batch: Images that memory is counted for.
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
    def peak_memory(self) -> int:
        """Return the peak bytes of inference: weights and live activations."""
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


def profile(
    model: keras.Model,
    input_shape: tuple[int, ...] | None = None,
    *,
    batch: int = 1,
) -> Profile:
    """Count what a model needs.

    Linear maps and convolutions are counted as multiply-adds, as the papers do; norms,
    activation functions, pooling and additions are not. Activations are what those
    maps put out, the measure of RegNet (Radosavovic et al., Designing Network Design
    Spaces, 2020, Sect. 3.4) and of the lists of other libraries. Nested models are
    counted layer by layer. Nothing is computed: only shapes are followed.

    Args:
        model: Functional or `Sequential` `keras.Model`, train form or merged.
        input_shape: Shape `(H, W, C)` to count at; `None` for the model's own.
        batch: Images that go through at once, for the memory.

    Returns:
        A `Profile`; printed, a table.

    Raises:
        InputError: If the model's sizes are unknown and none are given, the model has
            no graph, or `batch` is no positive integer.
    """
    if not hasattr(model, "operations") and not isinstance(model, keras.Sequential):
        raise InputError(
            "profile() reads a functional or Sequential model's graph. "
            f"Received: {model!r}"
        )
    check_positive(batch=batch)
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
        stages=_stages(model, rows, traced.ends),
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


def count_parameters(variables: Iterable[Any]) -> int:
    """Count the values in variables."""
    return sum(math.prod(variable.shape) for variable in variables)
