"""Every private name of Keras that the library uses, each with its reason.

Keras is pinned below its next minor version for their sake; a test of each
(`tests/test_keras_internals.py`) says which of them a new version has dropped.
"""

import contextlib
import itertools
import math
import operator
import threading
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.backend import AutocastScope
from keras.src.backend.common import global_state
from keras.src.callbacks.monitor_callback import MonitorCallback
from keras.src.models.functional import Functional

from kmlp.budget import Budget
from kmlp.errors import InputError

__all__ = ["AutocastScope", "MonitorCallback", "global_state"]

# `AutocastScope`: what a layer's call casts weights to, for tracing a layer alone.
# `global_state`: the shapes-only mode of initializers is a state of the process.
# `MonitorCallback`: "which value is better" is Keras' own decision, not ours.


def flat_layers(
    layer: keras.Layer, include_self: bool = True, recursive: bool = True
) -> list[keras.Layer]:
    """Return a layer and all within it; `model.layers` has the first level alone."""
    found = layer._flatten_layers(include_self=include_self, recursive=recursive)
    return list(found)


def nodes_by_depth(model: keras.Layer) -> dict[int, list]:
    """Return the recorded graph, which the public interface does not show.

    Empty where there is none; of a `Sequential` it is that of the model within.
    """
    graph = getattr(model, "_functional", None) or model
    return getattr(graph, "_nodes_by_depth", {})


def is_graph(layer: Any) -> bool:
    """Return whether a layer is a graph of layers, with no `call` of its own."""
    return isinstance(layer, (Functional, keras.Sequential)) and (
        type(layer).call in (Functional.call, keras.Sequential.call)
    )


def operation_of(tensor: Any) -> Any:
    """Return the operation that made a symbolic tensor, `None` of any other value."""
    history = history_of(tensor)
    return None if history is None else history.operation


def history_of(tensor: Any) -> Any:
    """Return operation, node and place of a symbolic tensor, `None` of others."""
    return getattr(tensor, "_keras_history", None)


def own_variables(layer: keras.Layer) -> tuple:
    """Return a layer's variables without those of its parts."""
    return (*layer._trainable_variables, *layer._non_trainable_variables)


def random_states(layer: keras.Layer) -> list:
    """Return the states of a layer's random numbers, without those of its parts."""
    return [generator.state for generator in layer._seed_generators]


def lambda_arguments(layer: keras.layers.Lambda) -> dict[str, Any]:
    """Return the functions of a Lambda as they are, not as its configuration has them.

    One of them has no public name.
    """
    return {
        "function": layer.function,
        "output_shape": layer._output_shape,
        "mask": layer.mask,
        "arguments": layer.arguments,
    }


def stateless() -> bool:
    """Return whether variables do not hold their values: within a `StatelessScope`."""
    return global_state.get_global_attribute("stateless_scope") is not None


@contextlib.contextmanager
def parts_unlocked(layer: keras.Layer) -> Iterator[Any]:
    """Let parts of a built layer be exchanged; yields its tracker."""
    layer._tracker.unlock()
    try:
        yield layer._tracker
    finally:
        layer._tracker.lock()


_BUILDING = threading.RLock()


@contextlib.contextmanager
def weights_within(budget: Budget, arrays: int) -> Iterator[None]:
    """Build models inside that have no more weights than their file may declare.

    Keras makes a weight of any size as soon as a configuration names it. It has no
    place to ask first: the layers' public `add_weight` is replaced meanwhile.

    Args:
        budget: Budget of the file, of which nothing is taken yet.
        arrays: Number of arrays that the file holds.

    Raises:
        InputError: If they have more.
    """
    original, refused = keras.Layer.add_weight, []
    numbers, here = itertools.count(), threading.get_ident()
    most = 2 * arrays + 64  # a new head has its own, and so have some that are empty

    def add_weight(self: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != here:  # what others build is not the file's
            return original(self, *args, **kwargs)
        shape = kwargs.get("shape") or (args[0] if args else ())
        size = 0
        with contextlib.suppress(TypeError):  # which Keras explains
            size = math.prod(map(operator.index, shape))
        try:
            budget.take(4 * size, f"a weight {shape} of {self.name}")
            if next(numbers) >= most:
                raise InputError(
                    f"This file describes more than {most:,} weights and holds "
                    f"{arrays:,} arrays: do not trust it. "
                    f"Received: {str(budget.path)!r}"
                )
        except InputError as error:
            refused.append(error)
            raise
        return original(self, *args, **kwargs)

    with _BUILDING:
        keras.Layer.add_weight = add_weight
        try:
            yield
        except (RuntimeError, TypeError, ValueError):  # one of which Keras makes of it
            if refused:
                raise refused[0] from None
            raise
        finally:
            keras.Layer.add_weight = original


def averaged_pairs(optimizer: keras.Optimizer) -> list[tuple]:
    """Return `(variable, average)` of what an optimizer averages."""
    averages = optimizer._model_variables_moving_average
    return list(zip(optimizer._trainable_variables, averages))


def variable_index(optimizer: keras.Optimizer, variable: Any) -> int:
    """Return the place of a variable among an optimizer's slots."""
    return optimizer._get_variable_index(variable)


def decays(optimizer: keras.Optimizer, variable: Any) -> bool:
    """Return whether an optimizer decays a variable, exclusions considered."""
    return optimizer._use_weight_decay(variable)


def decay_weights(optimizer: keras.Optimizer, variables: list) -> bool:
    """Let an optimizer decay weights in a way of its own, if it has one.

    Returns:
        Whether it has: most optimizers share the base class's way.
    """
    if type(optimizer)._apply_weight_decay is keras.Optimizer._apply_weight_decay:
        return False
    optimizer._apply_weight_decay(variables)
    return True


def choose_comparison(callback: MonitorCallback) -> None:
    """Choose whether more or less is better, once the monitored name is known."""
    callback._set_monitor_op()
