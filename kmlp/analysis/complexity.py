"""Parameters and multiply-adds, per layer and in total."""

import dataclasses
import math

import keras

from kmlp.console import aligned

# Keras' own layers whose kernel is applied once per output position.
_LINEAR = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


@dataclasses.dataclass(frozen=True)
class LayerProfile:
    """One call of one layer."""

    name: str
    kind: str
    output_shape: tuple
    trainable: int
    non_trainable: int
    macs: int


@dataclasses.dataclass(frozen=True)
class Profile:
    """A model's parameters and multiply-adds for one image.

    Attributes:
        trainable, non_trainable: numbers of parameters; moving statistics are
            non-trainable.
        macs: multiply-adds of all linear maps and convolutions.
        layers: a `LayerProfile` per call, in order of the graph; a layer's
            parameters are counted at its first call.
    """

    trainable: int
    non_trainable: int
    macs: int
    layers: tuple[LayerProfile, ...]

    def __str__(self):
        header = ("layer", "kind", "output", "trainable", "non-trainable", "MACs")
        rows = [
            (row.name, row.kind, "x".join(map(str, row.output_shape[1:])))
            + (f"{row.trainable:,}", f"{row.non_trainable:,}", f"{row.macs:,}")
            for row in self.layers
            if row.trainable or row.non_trainable or row.macs
        ]
        total = (f"{self.trainable:,}", f"{self.non_trainable:,}", f"{self.macs:,}")
        rows = [header, *rows, ("total", "", "", *total)]
        return aligned(rows, left=3)


def profile(model, input_shape=None):
    """Counts a model's parameters and multiply-adds.

    Linear maps and convolutions are counted, as the papers do; norms,
    activations, pooling and additions are not. Nested models are counted layer
    by layer.

    Args:
        model: a functional or `Sequential` `keras.Model`, train form or merged.
        input_shape: `(H, W, C)` at which to count; `None`: the model's own.

    Returns:
        A `Profile`; printed, a table.

    Raises:
        ValueError: the model's sizes are unknown and none are given, or the model
            has no graph.
    """
    if not hasattr(model, "operations") and not isinstance(model, keras.Sequential):
        raise ValueError(
            "profile() reads a functional or Sequential model's graph. "
            f"Received: {model!r}"
        )
    shape = (
        tuple(model.inputs[0].shape[1:]) if input_shape is None else tuple(input_shape)
    )
    if None in shape:
        raise ValueError(
            "The model takes images of any size: pass input_shape=(height, width, "
            f"channels) to count at one. Received: input_shape={shape}"
        )
    rows = list(_rows(model, (None, *shape), seen=set()))
    return Profile(
        trainable=count_parameters(model.trainable_weights),
        non_trainable=count_parameters(model.non_trainable_weights),
        macs=sum(row.macs for row in rows),
        layers=tuple(rows),
    )


def _rows(model, shape, seen, prefix=""):
    weights = model
    if tuple(model.inputs[0].shape) != shape:
        # The graph records shapes; a twin records them at the size asked for.
        images = keras.Input(shape[1:], dtype=model.inputs[0].dtype)
        model = keras.models.clone_model(model, input_tensors=images)
    if isinstance(model, keras.Sequential):
        model = model._functional
    nodes = model._nodes_by_depth
    for node in (
        node for depth in sorted(nodes, reverse=True) for node in nodes[depth]
    ):
        layer = node.operation
        if not isinstance(layer, keras.Layer) or node.is_input:
            continue
        shapes = [tuple(t.shape) for t in node.input_tensors]
        if isinstance(layer, keras.Model):
            inner = weights.get_layer(layer.name)
            yield from _rows(inner, shapes[0], seen, f"{prefix}{layer.name}/")
            continue
        first = (prefix, layer.name) not in seen
        seen.add((prefix, layer.name))
        yield LayerProfile(
            name=prefix + layer.name,
            kind=type(layer).__name__,
            output_shape=tuple(node.outputs[0].shape),
            trainable=count_parameters(layer.trainable_weights) if first else 0,
            non_trainable=count_parameters(layer.non_trainable_weights) if first else 0,
            macs=_macs(
                layer,
                shapes if len(shapes) > 1 else shapes[0],
                tuple(node.outputs[0].shape),
            ),
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
