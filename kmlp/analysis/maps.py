"""Go through the graphs of models as Keras does, and find the maps in them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from kmlp.errors import InputError, nearest
from kmlp.keras_internals import nodes_by_depth
from kmlp.typing import Tensor


def graph_of(model: Any) -> Any:
    """Return a model's graph, `None` where it has none.

    Args:
        model: Any object; subclassed and unbuilt Sequential models, and what is no
            model, have no graph.
    """
    if isinstance(model, keras.Sequential):
        return model._functional if model.built else None
    functional = isinstance(model, keras.Model) and hasattr(model, "_nodes_by_depth")
    return model if functional else None


def ordered_nodes(graph: Any) -> list[Any]:
    """Return the nodes of a graph, inputs too, in the order of Keras' own run."""
    depths = nodes_by_depth(graph)
    return [node for depth in sorted(depths, reverse=True) for node in depths[depth]]


def calls_of(graph: Any) -> list[Any]:
    """Return the nodes of a graph that compute something, in the same order."""
    return [node for node in ordered_nodes(graph) if not node.is_input]


NAMED = 6  # how many of many maps a message names


@dataclasses.dataclass(frozen=True)
class Map:
    """A map that a layer puts out.

    Attributes:
        name: Name of the map: `"P5"` of a pyramid's level, or the layer's name, after
            the names of the models that it is nested in, with slashes between them.
        tensor: Symbolic tensor of shape `(None, h, w, C)`.
        trunk: Whether everything behind it depends on it alone: the sum that ends a
            block is, what a branch computes is not.
    """

    name: str
    tensor: keras.KerasTensor
    trunk: bool


def maps_of(model: keras.Model) -> list[Map]:
    """Return all maps of a model, nested models' too, in the order of the graph.

    A map has more than one position: what squeezes one to a vector is none.

    Args:
        model: Keras model with a graph.

    Returns:
        Maps, named after layers.

    Raises:
        InputError: If the model has no graph.
    """
    if graph_of(model) is None:
        raise InputError(
            "The maps of a model are found in its graph: pass a functional or a built "
            f"Sequential model. Received: {model!r}"
        )
    return list(_maps(model, "", True))


def _maps(model, path, trunk):
    graph = graph_of(model)
    nodes = calls_of(graph)
    waiting = {}  # tensor -> how often it is still needed
    for tensor in [t for node in nodes for t in node.input_tensors] + graph.outputs:
        waiting[id(tensor)] = waiting.get(id(tensor), 0) + 1
    live = {id(tensor) for tensor in graph.inputs}
    for node in nodes:
        for tensor in node.input_tensors:
            waiting[id(tensor)] -= 1
        live |= {id(tensor) for tensor in node.outputs}
        live = {key for key in live if waiting.get(key)}
        name, inner = path + node.operation.name, node.operation
        alone = trunk and len(live) == 1
        if graph_of(inner) is not None:
            yield from _maps(inner, f"{name}/", alone)
        elif len(node.outputs) == 1 and _is_map(node.outputs[0]):
            yield Map(name, node.outputs[0], alone and id(node.outputs[0]) in live)


def _is_map(tensor):
    shape = tensor.shape
    return len(shape) == 4 and shape[-1] is not None and tuple(shape[1:3]) != (1, 1)


def pyramid_of(model: keras.Model) -> list[Map]:
    """Return the maps of a model's pyramid, an empty list where it has none."""
    taps = getattr(model, "pyramid_outputs", None) or {}
    return [Map(name, tensor, True) for name, tensor in taps.items()]


def find_map(model: keras.Model, layer: str | None = None) -> Map:
    """Return a map of a model by its name.

    Args:
        model: Keras model with a graph.
        layer: Level of its pyramid, such as `"P4"`, or a layer's name, those of nested
            models before it, `"backbone/stage1"`; `None` for the pyramid's last level
            of more than one position, or else the last map of the graph.

    Raises:
        InputError: If there is no such map, or no map at all; the message names those
            that are.
    """
    levels, maps = pyramid_of(model), maps_of(model)
    if not maps:
        raise InputError(
            "No layer of this model puts out a map (N, h, w, C): the gradient, "
            "SmoothGrad and integrated gradients need none. "
            f"Received: {model.name!r}"
        )
    if layer is None:
        return ([one for one in levels if _is_map(one.tensor)] or maps)[-1]
    # A layer that is called more than once: its last call.
    known = {one.name: one for one in (*maps, *levels)}
    if layer not in known:
        near = nearest(layer, known, NAMED)
        ends = [one.name for one in maps if one.trunk] or list(known)
        near = near or [one.name for one in levels] + ends[-NAMED:]
        raise InputError(
            "A map is named after a level of the pyramid or the layer that puts it "
            f"out; these would do, among others: {', '.join(near)}. "
            f"Received: layer={layer!r}"
        )
    return known[layer]


def run_graph(
    model: keras.Model,
    inputs: Tensor,
    *,
    changes: Mapping[int, Callable] | None = None,
    seen: dict[int, Any] | None = None,
    stand_ins: Mapping[int, Callable] | None = None,
) -> Any:
    """Run a model's inference with a hand in its graph.

    Args:
        model: Keras model with a graph and one input.
        inputs: Its input.
        changes: Changes `{id of a KerasTensor: function of its value}`.
        seen: Tensors to watch, `{id of a KerasTensor: None}`; each value takes the
            place of `None`.
        stand_ins: Stand-ins `{id of a layer: function called in its place}`.

    Returns:
        The model's outputs, one by itself.
    """
    changes, stand_ins = changes or {}, stand_ins or {}
    seen = {} if seen is None else seen
    graph = graph_of(model)
    values = {}

    def _note(tensor, value):
        if id(tensor) in changes:
            value = changes[id(tensor)](value)
        if id(tensor) in seen:
            seen[id(tensor)] = value
        values[id(tensor)] = value

    for tensor, value in zip(graph.inputs, keras.tree.flatten(inputs)):
        _note(tensor, keras.ops.cast(value, tensor.dtype))
    for node in calls_of(graph):
        layer = node.operation
        args, kwargs = node.arguments.fill_in(values)
        if getattr(layer, "_call_has_training_arg", False):
            kwargs["training"] = False
        if graph_of(layer) is None or id(layer) in stand_ins:
            found = stand_ins.get(id(layer), layer)(*args, **kwargs)
        else:
            hands: Any = {"changes": changes, "seen": seen, "stand_ins": stand_ins}
            found = run_graph(layer, *args, **hands)
        for tensor, value in zip(node.outputs, keras.tree.flatten(found)):
            _note(tensor, value)
    outputs = [values[id(tensor)] for tensor in graph.outputs]
    return outputs[0] if len(outputs) == 1 else outputs


def checked_images(images: Any) -> np.ndarray:
    """Return a batch of images as float32.

    Raises:
        InputError: If it is none.
    """
    images = np.asarray(images, "float32")
    if images.ndim != 4 or not len(images):
        raise InputError(
            "`images` is a batch (N, H, W, C) of at least one, as the model takes it: "
            f"images[None] is one of one. Received: a shape of {images.shape}"
        )
    return images
