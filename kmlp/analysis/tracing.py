"""Follow what a model does by shapes alone: Keras' layers and operations in order."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras

from kmlp.analysis.maps import graph_of, ordered_nodes
from kmlp.keras_internals import AutocastScope, flat_layers, history_of


def names(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# Keras' operations and layers that are matrix products or convolutions.
_PRODUCTS = names(
    "Conv Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose "
    "ConvTranspose Dense DepthwiseConv DepthwiseConv1D DepthwiseConv2D Dot Einsum "
    "EinsumDense Inner Matmul SeparableConv SeparableConv1D SeparableConv2D Tensordot "
    "Vdot"
)


def _is_composite(operation):
    """Return whether an operation is a layer whose `call` is to be opened."""
    if not isinstance(operation, keras.Layer):
        return False
    owner = next(c for c in type(operation).__mro__ if "call" in vars(c))
    return bool(operation._layers) or not owner.__module__.startswith("keras.")


def _multiplies(layer, args):
    """Return whether a layer reports multiply-adds for its one input."""
    shapes = [tuple(t.shape) for t in _tensors_in(args)]
    counts = len(shapes) == 1 and hasattr(layer, "multiply_adds")
    return counts and layer.multiply_adds(shapes[0]) > 0


def _kinds_of(operation):
    """Return the names of the Keras classes that an operation is of, nearest first."""
    owners = type(operation).__mro__
    return [c.__name__ for c in owners if c.__module__.startswith("keras.")]


def _tensors_in(structure):
    """Return the symbolic tensors in nested lists, tuples and dictionaries in order."""
    return [
        t for t in keras.tree.flatten(structure) if isinstance(t, keras.KerasTensor)
    ]


# Exceptions of code that wants a backend's tensors and gets symbolic ones.
_UNFOLLOWED = (
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,  # NotImplementedError too
    TypeError,
    ValueError,
)


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor that flows through the graph; `None` sizes are unknown."""

    shape: tuple[Any, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Operation:
    """One primitive operation.

    Attributes:
        name: Name of the operation or layer, with the layers that it is part of.
        kind: Keras' class of the operation or layer; of a layer that cannot be opened
            its own.
        product: Whether it is a matrix product or a convolution.
        inputs, outputs: Indices into the trace's values; weights are none of them.
    """

    name: str
    kind: str
    product: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of one of the model's layers, nested models opened.

    Attributes:
        name: Name of the layer, with the nested models that it is part of.
        layer: Layer itself.
        input_shapes, output_shape: Shapes as the model's graph records them.
        operations: What runs in it, and what follows up to the next layer.
    """

    name: str
    layer: keras.Layer
    input_shapes: tuple[tuple, ...]
    output_shape: tuple
    operations: Sequence[Operation]


@dataclasses.dataclass(frozen=True)
class Trace:
    """The operations that run when a model is applied to a batch.

    Attributes:
        values: All tensors.
        inputs, outputs: Indices of the model's own.
        calls: Layers in order, and in them the operations.
        ends: How many calls have begun once each node of the model's own graph, as
            `ordered_nodes` gives them, has run.
    """

    values: tuple[Value, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    calls: tuple[Call, ...]
    ends: tuple[int, ...]

    def put_out(self, call: Call) -> int:
        """Count what the matrix products and convolutions of a call put out."""
        outputs = (v for op in call.operations if op.product for v in op.outputs)
        return sum(math.prod(self.values[v].shape) for v in outputs)


def trace(
    model: keras.Model, input_shape: Sequence[int] | None = None, *, batch: int = 1
) -> Trace:
    """Follow a batch through a model by shapes alone.

    Args:
        model: Functional or `Sequential` `keras.Model`, with weights or only their
            shapes.
        input_shape: Shape of the one input, without the batch; `None` for the model's
            own.
        batch: Number of images.
    """
    tracer = _Tracer()
    images = [
        keras.KerasTensor((batch, *(input_shape or t.shape[1:])), dtype=t.dtype)
        for t in model.inputs
    ]
    inputs = [tracer.number(image) for image in images]
    ends: list[int] = []
    outputs = tracer._run_model(model, images, ends=ends)
    return Trace(
        outputs=tuple(tracer.number(t) for t in outputs),
        values=tuple(tracer.values),
        inputs=tuple(inputs),
        calls=tuple(tracer.calls),
        ends=tuple(ends),
    )


class _Tracer:
    def __init__(self):
        self.values = []
        self.calls = []
        self._ran = []  # operations of the last call; before the first, of it
        self._opened = 0  # how many layers, one in another
        self._numbers = {}
        self._kept = []  # so that no two tensors share an id

    def number(self, tensor: Any) -> int:
        """Return the index of a tensor's value."""
        if id(tensor) not in self._numbers:
            self._numbers[id(tensor)] = len(self.values)
            self._kept.append(tensor)
            dtype = keras.backend.standardize_dtype(tensor.dtype)
            self.values.append(Value(tuple(tensor.shape), dtype))
        return self._numbers[id(tensor)]

    def _run_model(self, model, images, prefix="", ends=None):
        """Run a model's graph; return its output tensors."""
        graph = _at_shape(model, images)
        found = {id(t): image for t, image in zip(graph.inputs, images, strict=True)}
        for node in ordered_nodes(graph):
            if not node.is_input:
                args, kwargs = node.arguments.fill_in(found)
                outputs = self._run_node(node, args, kwargs, prefix)
                found |= zip(map(id, node.outputs), outputs, strict=True)
            if ends is not None:
                ends.append(len(self.calls))
        return [found[id(t)] for t in graph.outputs]

    def _run_node(self, node, args, kwargs, prefix):
        layer = node.operation
        if graph_of(layer) is not None:
            images = _tensors_in((args, kwargs))
            return self._run_model(layer, images, f"{prefix}{layer.name}/")
        if isinstance(layer, keras.Layer) and not self._opened:
            # Operations before the first layer count with it.
            self._ran = [] if self.calls else self._ran
            shapes = tuple(tuple(t.shape) for t in node.input_tensors)
            output_shape = tuple(node.outputs[0].shape)
            name = prefix + layer.name
            self.calls.append(Call(name, layer, shapes, output_shape, self._ran))
        with _unrecorded(layer):
            return self._run(layer, args, kwargs, node.outputs, prefix, follow=True)

    def _run(self, operation, args, kwargs, recorded, prefix, follow=False):
        """Run an operation or layer; return its output tensors.

        Args:
            operation, args, kwargs: What is called, on what.
            recorded: Output tensors that a graph records.
            prefix: Beginning of names.
            follow: Whether the graph was recorded for other sizes than what comes in;
                else the recorded tensors are the outputs.
        """
        outputs, is_composite = None, _is_composite(operation)
        if graph_of(operation) is not None:
            outputs = self._run_model(operation, _tensors_in((args, kwargs)))
        elif is_composite:
            outputs = self._run_parts(operation, args, kwargs, prefix)
        if outputs is None:
            outputs = recorded
            if follow:
                outputs = _outputs(operation, args, kwargs, recorded)
            kinds = _kinds_of(operation)
            self._ran.append(
                Operation(
                    prefix + operation.name,
                    type(operation).__name__ if is_composite else kinds[0],
                    not _PRODUCTS.isdisjoint(kinds),
                    tuple(self.number(t) for t in _tensors_in((args, kwargs))),
                    tuple(self.number(t) for t in outputs),
                )
            )
        if follow:
            # Without the history by which later calls would be noted on its layers.
            recorded = [keras.KerasTensor(t.shape, dtype=t.dtype) for t in outputs]
        for tensor, known in zip(recorded, outputs, strict=True):
            self._numbers[id(tensor)] = self.number(known)
            self._kept.append(tensor)
        return recorded

    def _run_parts(self, layer, args, kwargs, prefix):
        """Run what a layer's `call` does; `None` where that cannot be followed."""
        try:
            with AutocastScope(layer.compute_dtype if layer.autocast else None):
                outputs = keras.tree.flatten(layer.call(*args, **kwargs))
        except _UNFOLLOWED:
            # A layer of somebody's own that computes with a backend's tensors, or
            # needs their values, remains one operation.
            return None
        if not all(isinstance(t, keras.KerasTensor) for t in outputs):
            return None
        self._opened += 1
        ran = self._ran
        start = len(ran)
        for node in _nodes_between(_tensors_in((args, kwargs)), outputs):
            inner, within = node.arguments, f"{prefix}{layer.name}/"
            self._run(node.operation, inner.args, inner.kwargs, node.outputs, within)
        self._opened -= 1
        own = ran[start:]
        if own and not any(op.product for op in own) and _multiplies(layer, args):
            # A 1x1 convolution of single channels that is written as a product of
            # two tensors.
            ran[start] = dataclasses.replace(ran[start], product=True)
        return outputs


def _nodes_between(inputs, outputs):
    """List the nodes between tensors, arguments before the operations that take them.

    So they run in the order in which Python computes an expression.
    """
    known = {id(t) for t in inputs}
    nodes, seen, waiting = [], set(), [(t, False) for t in reversed(outputs)]
    while waiting:
        item, ready = waiting.pop()
        if ready:
            nodes.append(item)
            continue
        history = history_of(item)
        if id(item) in known or history is None or history.operation is None:
            continue
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) not in seen:
            seen.add(id(node))
            waiting.append((node, True))
            waiting += [(t, False) for t in reversed(node.input_tensors)]
    return nodes


@contextlib.contextmanager
def _unrecorded(layer):
    """Remove the traces that calls made inside leave on the layer's parts."""
    parts = flat_layers(layer) if isinstance(layer, keras.Layer) else [layer]
    marks = [
        (nodes, len(nodes))
        for part in parts
        for nodes in (part._inbound_nodes, part._outbound_nodes)
    ]
    try:
        yield
    finally:
        for nodes, length in marks:
            del nodes[length:]


def _outputs(operation, args, kwargs, recorded):
    """Return the outputs of an operation for these arguments, by shapes alone."""
    try:
        return _tensors_in(operation.compute_output_spec(*args, **kwargs))
    except _UNFOLLOWED:
        # It knows its output only for the sizes that it was built for.
        return recorded


def _at_shape(model, images):
    """Return a model's graph, or a twin's if the model was built for another size."""
    shapes = [tuple(t.shape[1:]) for t in images]
    if [tuple(t.shape[1:]) for t in model.inputs] != shapes and len(shapes) == 1:
        # Layers may have been built for a size.
        inputs = keras.Input(shapes[0], dtype=model.inputs[0].dtype)
        model = keras.models.clone_model(model, input_tensors=inputs)
    return graph_of(model)
