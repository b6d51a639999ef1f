"""Logits and their derivatives, on whichever backend Keras runs."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.analysis.maps import calls_of, graph_of, run_graph
from kmlp.errors import InputError
from kmlp.layers.head import ClassifierHead

_ENDS = (keras.layers.Dense, ClassifierHead)
# Layers, and operations of `keras.ops`, that are an activation and no more.
_ACTIVATIONS = ("Activation", "Softmax", "Sigmoid")


def differentiated(function: Callable, variables: Sequence) -> Callable:
    """Differentiate a function's sum by its first argument.

    Args:
        function: Function of tensors to `(values, further)`: values of any shape, whose
            sum is differentiated, and a structure of tensors that is only handed on.
        variables: Keras variables that it reads.

    Returns:
        A function of NumPy arrays to `(derivative, further)`, float32 arrays; zeros
        where the sum does not depend on the argument.

    Raises:
        InputError: If Keras runs on a backend without derivatives.
    """
    backend = keras.backend.backend()
    module = importlib.import_module(backend)

    def _total(first, *others):
        values, further = function(first, *others)
        return ops.sum(ops.cast(values, "float32")), further

    if backend == "jax":
        state = [variable.value for variable in variables]

        def _stateless(state, *arrays):
            mapping = list(zip(variables, state))
            with keras.StatelessScope(state_mapping=mapping):
                return _total(*arrays)

        step = module.value_and_grad(_stateless, argnums=1, has_aux=True)
        step = module.jit(step)

        def _run(*arrays):
            (_, further), derivative = step(state, *arrays)
            return _arrays((derivative, further))

    elif backend == "torch":

        def _run(*arrays):
            first, *others = map(ops.convert_to_tensor, arrays)
            first.requires_grad_(True)
            value, further = _total(first, *others)
            (derivative,) = module.autograd.grad(value, first, allow_unused=True)
            if derivative is None:
                derivative = ops.zeros_like(first)
            return _arrays((derivative, further))

    elif backend == "tensorflow":

        def _run(*arrays):
            first, *others = map(ops.convert_to_tensor, arrays)
            with module.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(first)
                value, further = _total(first, *others)
            derivative = tape.gradient(
                value, first, unconnected_gradients=module.UnconnectedGradients.ZERO
            )
            return _arrays((derivative, further))

    else:
        raise InputError(
            "Derivatives are taken on TensorFlow, JAX or PyTorch: set KERAS_BACKEND to "
            f"tensorflow, jax or torch. Received: {backend!r}"
        )
    return _run


def logits_of(model: Any) -> tuple[Callable, Sequence]:
    """Return what a classifier says before its activation, as a function.

    A softmax mixes the classes, and flattens where it is sure: what is looked for is
    the derivative of the class's own logit. So an activation that ends the graph is
    left out: of the last layer (`head_activation`, a Dense's), or a layer of its own.
    A model without a graph, and a plain function, are taken to give logits.

    Args:
        model: Built `keras.Model`, or a function of a tensor of images `(N, H, W, C)`
            to a tensor of logits.

    Returns:
        Tuple `(function, variables)`: the function takes images and further arguments
        of `kmlp.analysis.maps.run_graph`, where the model has a graph; variables are
        all that it reads.

    Raises:
        InputError: If the model does not take images to one batch of classes.
    """
    if not isinstance(model, keras.Model):
        return model, ()
    if graph_of(model) is None:
        return lambda images: model(images, training=False), model.variables
    inputs, outputs = model.inputs, model.outputs
    one = len(inputs) == 1 and len(outputs) == 1
    if not one or len(inputs[0].shape) != 4 or len(outputs[0].shape) != 2:
        shapes = [tuple(tensor.shape) for tensor in (*inputs, *outputs)]
        raise InputError(
            "Saliency is of a classifier: one batch of images (N, H, W, C) in, one of "
            f"classes (N, K) out. Received: {model.name!r} with {shapes}"
        )
    stand_ins = _without_activation(model)
    variables = [*model.variables]
    for twin in stand_ins.values():
        variables += getattr(twin, "variables", [])

    def _logits(images, **hands):
        if not (stand_ins or hands):
            return model(images, training=False)
        return run_graph(model, images, stand_ins=stand_ins, **hands)

    return _logits, variables


def _without_activation(model):
    """Map a layer's id to a function that gives its values before the activation."""
    graph = graph_of(model)
    produced = {id(t): node for node in calls_of(graph) for t in node.outputs}
    last = produced[id(graph.outputs[0])]
    layer = last.operation
    if graph_of(layer) is not None:
        return _without_activation(layer)
    if type(layer).__name__ in _ACTIVATIONS:
        return {id(layer): lambda x, **_: x}
    # In other layers, `activation` may be an inner one.
    activation = layer.activation if isinstance(layer, _ENDS) else None
    if keras.activations.get(activation) is keras.activations.linear:
        return {}
    twin = type(layer).from_config({**layer.get_config(), "activation": None})
    twin.build(tuple(last.input_tensors[0].shape))
    twin.set_weights(layer.get_weights())
    return {id(layer): twin}


def _arrays(structure):
    """Convert tensors to float32 arrays; integers keep their type."""

    def _array(tensor):
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)):
            tensor = ops.cast(tensor, "float32")
        return np.asarray(ops.convert_to_numpy(tensor))

    return keras.tree.map_structure(_array, structure)
