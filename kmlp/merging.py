"""Rebuilding a model layer by layer, nested models included."""

import contextlib
import functools
import warnings
from collections.abc import Callable
from typing import Any

import keras

from kmlp.console import first_line, some
from kmlp.divergence import called, check_equal, is_training
from kmlp.errors import InputError, KmlpError, check_choice
from kmlp.keras_internals import flat_layers, nodes_by_depth, parts_unlocked, stateless
from kmlp.layers.convolution_free import (
    ALL,
    CHEAPER,
    CONVOLVING,
    FORMS,
    convolution_free,
)
from kmlp.layers.layer import QUANTIZED, copy, fill_own, remade, replaced

# Attributes by which a model describes its images, classes and weights.
_KEPT = ("preprocessing", "class_names", "weights_source", "num_classes", "task")

# Choices of what becomes of convolutions.
DENSE = (None, CHEAPER, ALL)

Replace = Callable[[keras.Layer], keras.Layer | None]


def rewrite(layer: Any, replace: Replace, check: bool = False) -> Any:
    """Return a new model whose layers are replacements or copies of a model's.

    A layer that stands in several places stays one layer.

    Args:
        layer: Built `keras.Model` or `keras.Layer`; it is left untouched.
        replace: Function of a layer that is no model; returns its built
            replacement, or `None` where it has none. Layers without a
            replacement are copied with their weights, and their parts are
            replaced where a part has a replacement of its own.
        check: Whether both are compared on random input.

    Returns:
        The new model or layer; `pyramid_outputs` of a model is kept, and what it
        knows of its images, classes and weights.

    Raises:
        InputError: If a layer cannot be rebuilt, or the check finds a difference.
    """
    rewriter = _Rewriter(replace)
    twin = rewriter(layer)
    if check and not stateless():
        check_equal(layer, twin, rewriter.twins.values())
    return twin


class _Rewriter:
    """A walk over a model that rewrites every layer once.

    Attributes:
        twins: Layers with their counterparts, by the layer's id.
    """

    def __init__(self, replace: Replace) -> None:
        self.replace = replace
        self.twins: dict[int, tuple[Any, Any]] = {}

    def __call__(self, layer: Any) -> Any:
        if not isinstance(layer, keras.Layer):
            return layer  # a bare operation of a graph, such as x + y
        if id(layer) not in self.twins:
            try:
                self.twins[id(layer)] = layer, self._rewritten(layer)
            except KmlpError:
                raise
            except Exception as error:  # whatever a stranger's class raises
                raise InputError(
                    f"{layer.name!r} ({type(layer).__name__}) cannot be rebuilt from "
                    f"its configuration and its state: {first_line(error)} It needs "
                    "get_config(), and a build() that makes all weights. "
                    f"Received: {layer!r}"
                ) from error
        return self.twins[id(layer)][1]

    def _rewritten(self, layer):
        if isinstance(layer, keras.Sequential) or hasattr(layer, "operations"):
            twin = self._graph(layer)
        else:
            twin = None if isinstance(layer, keras.Model) else self.replace(layer)
            twin = self._parts(layer) if twin is None else twin
        if isinstance(layer, keras.Model):
            for name in _KEPT:
                with contextlib.suppress(AttributeError):  # not known, or a property
                    setattr(twin, name, getattr(layer, name))
            if not layer.trainable:
                twin.trainable = False
        return twin

    def _graph(self, model):
        pyramid = getattr(model, "pyramid_outputs", None)
        if not pyramid:
            return self._clone(model)
        # The pyramid's tensors are further outputs while the graph is rebuilt.
        outputs = {"outputs": model.outputs, "pyramid": dict(pyramid)}
        twin = self._clone(keras.Model(model.inputs, outputs, name=model.name))
        outputs = twin.output["outputs"]
        rewritten = keras.Model(
            twin.inputs[0] if len(twin.inputs) == 1 else twin.inputs,
            outputs[0] if len(outputs) == 1 else outputs,
            name=model.name,
        )
        rewritten.pyramid_outputs = twin.output["pyramid"]
        return rewritten

    def _clone(self, model):
        how = {} if isinstance(model, keras.Sequential) else {"call_function": called}
        # Keras would compile the clone, and cannot with a loss of somebody's own.
        with replaced(model, "compiled", False):
            twin = keras.models.clone_model(model, clone_function=self, **how)
        if model.compiled:
            with contextlib.suppress(Exception):
                twin.compile_from_config(model.get_compile_config())
        return twin

    def _parts(self, layer):
        """Return a copy of a layer or subclassed model with its parts rewritten.

        Parts are found where Keras tracks them: attributes, and lists, tuples and
        dictionaries that attributes hold.
        """
        parts = flat_layers(layer, include_self=False)
        if not _is_rewritten(layer) and not any(map(self._differs, parts)):
            twin = copy(layer)
            for pair in zip(flat_layers(layer), flat_layers(twin)):
                self.twins[id(pair[0])] = pair
            return twin
        twin = remade(layer, type(layer).get_config(layer))
        fill_own(twin, layer)
        # PyTorch's modules keep their parts apart from other attributes.
        attributes = {**vars(layer), **vars(layer).get("_modules", {})}
        held = {
            name: value
            for name, value in attributes.items()
            if name not in _bookkeeping()
            and not name.startswith("_self_")  # TensorFlow's
            and _holds_layers(value)
        }
        # A built layer refuses new parts; these take the place of their equals. Keras
        # knows those by their addresses, and would take a new part for the freed one
        # that it stands in place of in memory.
        with parts_unlocked(twin) as tracker:
            for part in list(twin._layers):
                tracker.untrack(part)
            for name, value in held.items():
                setattr(twin, name, self._value(value))
        if _is_rewritten(layer) or any(map(self._is_changed, parts)):
            twin.get_config = functools.partial(_refuse_config, twin)
        return twin

    def _differs(self, part):
        """Return whether a part's counterpart is none that its owner's copy makes."""
        if id(part) in self.twins or _is_rewritten(part):
            return True
        return not isinstance(part, keras.Model) and self.replace(part) is not None

    def _is_changed(self, part):
        """Return whether a part has become another than its owner's class makes."""
        if id(part) not in self.twins:
            return False  # a part of what has been replaced
        new = self.twins[id(part)][1]
        if _is_rewritten(new) or isinstance(part, keras.Model):
            return _is_rewritten(new)  # the layers of a graph are parts, too
        return type(new) is not type(part) or new.get_config() != part.get_config()

    def _value(self, value):
        return keras.tree.map_structure(
            lambda v: self(v) if isinstance(v, keras.Layer) else v, value
        )


def _is_rewritten(layer):
    """Return whether a layer holds parts that its class would not make."""
    return "get_config" in vars(layer)


def _refuse_config(layer):
    """Refuse to save a layer whose class would make its parts anew, as they were."""
    raise InputError(
        "The class of this layer does not know the form that its parts were given: "
        "what is saved could not be loaded. Save the model as it was before, or export "
        f"it. Received: {layer.name!r}, a {type(layer).__name__}"
    )


@functools.cache
def _bookkeeping():
    """Return the names of attributes that every Keras model has."""
    return frozenset(vars(keras.Model(name="any")))


def _holds_layers(value):
    return any(isinstance(v, keras.Layer) for v in keras.tree.flatten(value))


def merge(
    model: keras.Model, check: bool = True, dense: str | None = None
) -> keras.Model:
    """Return the equivalent inference model of any model that holds kmlp layers.

    Locality branches go into their FC kernels, norms, scales and shifts into
    their linear neighbours. The walk knows one protocol: a layer with a method
    `merged()` returns its own inference form; all other layers are copied, LoRA
    becoming part of their kernels. A layer that the graph calls with
    `training=True` has no inference form, and is copied too. The model is left
    untouched; merging a merged model changes nothing.

    Args:
        model: Built `keras.Model` (functional, `Sequential` or subclassed) or
            `keras.Layer`; nested models and layers are walked too.
        check: Whether both are compared on a small batch of random input. What a
            layer keeps from its configuration and its weights is lost in a copy,
            and seen in no other way. A warning says where nothing can be compared.

    Returns:
        A new model with the same inputs, outputs, layer names and dtype policy;
        `pyramid_outputs`, `preprocessing` and `class_names` are kept where the
        model has them, and it is compiled alike where its loss can be rebuilt.

    Raises:
        InputError: If this is no built model, a layer is quantized or cannot be
            rebuilt, or the outputs differ; the message names the first layer that
            answers otherwise. With `dense="all"`, if a convolution or pooling is of a
            kind that has no other form.

    Reference: RepMLPNet (Ding et al., 2022), Sect. 3.
    """
    check_choice(DENSE, dense=dense)
    if not isinstance(model, keras.Layer):
        raise InputError(
            "merge() takes a keras.Model or keras.Layer, such as "
            f"kmlp.create_model() returns. Received: {model!r}"
        )
    if not model.built:
        raise InputError(
            "merge() needs a built model: call it on data or build() it first. "
            f"Received: {model.name!r}, which has no weights yet"
        )
    always = _always_in_training(model)
    merged = rewrite(model, functools.partial(_inference_form, always), check)
    return merged if dense is None else _in_dense_form(merged, dense, check)


def dense_layers(model: keras.Layer) -> dict[str, str]:
    """Return `{layer: form}` of what stands in the place of convolutions and pooling.

    Forms are `"position FC"`, `"shifts + FC"` and `"shifts"`.
    """
    found: dict[str, str] = {}
    within: set[int] = set()
    for layer in flat_layers(model):
        form = getattr(layer, "form", None)
        if form in FORMS and id(layer) not in within:
            found[layer.path or layer.name] = form
            within |= set(map(id, flat_layers(layer)))
    return found


def _in_dense_form(model, dense, check):
    always, shapes = _always_in_training(model), _input_shapes(model)

    def replace(layer: keras.Layer) -> keras.Layer | None:
        if id(layer) in always:
            return None
        return convolution_free(layer, dense, shapes.get(id(layer)))

    twin = rewrite(model, replace, check)
    left = [part for part in flat_layers(twin) if isinstance(part, CONVOLVING)]
    if left and dense == ALL:
        kinds = some(f"{part.path} ({type(part).__name__})" for part in left)
        raise InputError(
            "dense='all' knows no other form of these layers (transposed and grouped "
            "convolutions, 'same' padding with strides on open sizes, channels first, "
            "or called with training=True); dense='cheaper' leaves them as they are. "
            f"Received: {kinds}"
        )
    if any(None in shape[1:3] for shape in shapes.values() if len(shape) == 4):
        kept = "shifts are used" if dense == ALL else "such layers stay convolutions"
        warnings.warn(
            f"An FC over positions needs known sizes, and {model.name!r} leaves some "
            f"open: there {kept}. Give the model a fixed input_shape for it.",
            stacklevel=3,
        )
    return twin


def _input_shapes(model):
    """Return `{id: shape}` of what graphs give their layers; what differs is open."""
    found: dict[int, tuple] = {}
    for node in _nodes(model):
        if len(node.input_tensors) == 1:
            shape, key = tuple(node.input_tensors[0].shape), id(node.operation)
            sizes = zip(found.setdefault(key, shape), shape)
            found[key] = tuple(a if a == b else None for a, b in sizes)
    return found


def _nodes(model):
    """Yield the nodes of all graphs in a model."""
    for graph in flat_layers(model):
        for nodes in nodes_by_depth(graph).values():
            yield from nodes


def _inference_form(always, layer):
    if id(layer) in always or not hasattr(layer, "merged"):
        return None
    modes = {part.quantization_mode for part in flat_layers(layer)} - {None}
    if not modes:
        return layer.merged()
    config, shapes = layer.get_config(), dict(layer.get_build_config())
    shapes.pop(QUANTIZED, None)
    plain = layer.__class__.from_config(config)
    plain.build_from_config(shapes)
    if plain.merged().get_config() == config:
        return None  # an inference form already
    raise InputError(
        "Quantized weights cannot be folded: merge first and quantize then, "
        f"kmlp.merge(model).quantize({min(modes)!r}). "
        f"Received: {layer.name!r}, quantized to {', '.join(sorted(modes))}"
    )


def _always_in_training(model):
    """Return the ids of layers that a graph calls with `training=True`."""
    found = set()
    for node in _nodes(model):
        layer = node.operation
        if isinstance(layer, keras.Layer) and is_training(node.arguments.kwargs):
            found |= set(map(id, flat_layers(layer)))
    return found
