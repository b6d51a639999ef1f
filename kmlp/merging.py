"""Rebuilding a model layer by layer, nested models included."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from kmlp.errors import InputError
from kmlp.keras_internals import flat_layers, parts_unlocked
from kmlp.layers.layer import copy, remade

# Attributes by which a model describes its images, classes and weights.
_KEPT = ("preprocessing", "class_names", "weights_source", "num_classes", "task")


def rewrite(layer: Any, replace: Callable[[keras.Layer], keras.Layer | None]) -> Any:
    """Return a new model whose layers are replacements or copies of a model's.

    Args:
        layer: Built `keras.Model` or `keras.Layer`; it is left untouched.
        replace: Function of a layer that is no model; returns its built
            replacement, or `None` where it has none. Layers without a
            replacement are copied with their weights, and their parts are
            replaced where a part has a replacement of its own.

    Returns:
        The new model or layer; `pyramid_outputs` of a model is kept, and what it
        knows of its images, classes and weights.
    """
    if not isinstance(layer, keras.Layer):
        return layer  # a bare operation of a graph, such as x + y
    if isinstance(layer, keras.Model):
        if isinstance(layer, keras.Sequential) or hasattr(layer, "operations"):
            return _rewrite_graph(layer, replace)
        return _rewrite_parts(layer, replace)
    replacement = replace(layer)
    if replacement is not None:
        return replacement
    return _rewrite_parts(layer, replace)


def _rewrite_graph(model, replace):
    pyramid = getattr(model, "pyramid_outputs", None)
    if not pyramid:
        return _marked(_clone(model, replace), model)
    # The pyramid's tensors are further outputs while the graph is rebuilt.
    outputs = {"outputs": model.outputs, "pyramid": dict(pyramid)}
    twin = _clone(keras.Model(model.inputs, outputs, name=model.name), replace)
    outputs = twin.output["outputs"]
    rewritten = keras.Model(
        twin.inputs[0] if len(twin.inputs) == 1 else twin.inputs,
        outputs[0] if len(outputs) == 1 else outputs,
        name=model.name,
    )
    rewritten.pyramid_outputs = twin.output["pyramid"]
    return _marked(rewritten, model)


def _marked(twin, model):
    """Return the twin with what a model knows beside its graph."""
    for name in _KEPT:
        if hasattr(model, name):
            setattr(twin, name, getattr(model, name))
    return twin


def _clone(model, replace):
    def convert(layer: Any) -> Any:
        return rewrite(layer, replace)

    if isinstance(model, keras.Sequential):
        return keras.models.clone_model(model, clone_function=convert)
    return keras.models.clone_model(model, clone_function=convert, call_function=_call)


def _call(layer, *args, **kwargs):
    """Call a layer as its original was called, less what it does not take.

    A graph records `training` and `mask` for a BatchNorm; the affine layer that
    replaces it knows neither.
    """
    taken = inspect.signature(layer.call).parameters
    return layer(*args, **{k: v for k, v in kwargs.items() if k in taken})


def _rewrite_parts(layer, replace):
    """Return a copy of a layer or subclassed model with its parts rewritten.

    Parts are found where Keras tracks them: attributes, and lists, tuples and
    dictionaries that attributes hold.
    """
    if not any(_replaceable(part, replace) for part in flat_layers(layer)):
        return copy(layer)
    twin = remade(layer, layer.get_config())
    for kind in ("_trainable_variables", "_non_trainable_variables"):
        for new, old in zip(getattr(twin, kind), getattr(layer, kind), strict=True):
            new.assign(old)
    # PyTorch's modules keep their parts apart from other attributes.
    attributes = {**vars(layer), **vars(layer).get("_modules", {})}
    parts = {
        name: value
        for name, value in attributes.items()
        if not name.startswith("_") and _holds_layers(value)
    }
    # A built layer refuses new parts; these take the place of their equals. Keras knows
    # those by their addresses, and would take a new part for the freed one that it
    # stands in place of in memory.
    with parts_unlocked(twin) as tracker:
        for part in list(twin._layers):
            tracker.untrack(part)
        for name, value in parts.items():
            setattr(twin, name, _rewrite_value(value, replace))
    return twin


def _replaceable(layer, replace):
    return not isinstance(layer, keras.Model) and replace(layer) is not None


def _holds_layers(value):
    return any(isinstance(v, keras.Layer) for v in keras.tree.flatten(value))


def _rewrite_value(value, replace):
    return keras.tree.map_structure(
        lambda v: rewrite(v, replace) if isinstance(v, keras.Layer) else v, value
    )


def merge(model: keras.Model) -> keras.Model:
    """Return the equivalent inference model of any model that holds kmlp layers.

    Locality branches go into their FC kernels, norms, scales and shifts into
    their linear neighbours. The walk knows one protocol: a layer with a method
    `merged()` returns its own inference form; all other layers are copied. The
    model is left untouched; merging a merged model changes nothing.

    Args:
        model: Built `keras.Model` (functional, `Sequential` or subclassed) or
            `keras.Layer`; nested models and layers are walked too.

    Returns:
        A new model with the same inputs, outputs, layer names and dtype policy;
        `pyramid_outputs`, `preprocessing` and `class_names` are kept where the
        model has them.

    Raises:
        InputError: If the model is not built.

    Reference: RepMLPNet (Ding et al., 2022), Sect. 3.
    """
    if not model.built:
        raise InputError(
            "merge() needs a built model: call it on data or build() it first. "
            f"Received: {model.name!r}, which has no weights yet"
        )
    return rewrite(model, _inference_form)


def _inference_form(layer):
    return layer.merged() if hasattr(layer, "merged") else None
