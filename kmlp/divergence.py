"""Compare two forms of a model on random input, and find where they part.

Merging copies what it does not fold, and a copy is made of what a layer tells about
itself. What a layer keeps from its weights and its configuration is seen in its answers
alone.
"""

import contextlib
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import keras
import ml_dtypes
import numpy as np

from kmlp.console import first_line, some
from kmlp.errors import InputError
from kmlp.keras_internals import flat_layers, is_graph
from kmlp.layers.layer import replaced

# Largest difference of an equal form, over the largest output; what rounds more
# coarsely may differ by so many roundings.
TOLERANCE, ROUNDINGS = 1e-4, 16
# What a model is compared on: a batch, of large images one, and sizes in place of
# unknown ones, of which the first counts that the model takes.
BATCH, LARGE, SIZES = 2, 1_000_000, (64, 224, 8)
_TINY = 1e-30
# What Keras itself adds to a call that its caller gave less.
_CONTEXT = ("training", "mask")


def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a layer as the one that it replaces was called.

    A graph records `training` and `mask` for a BatchNorm; the affine layer that
    replaces it knows neither.
    """
    taken = inspect.signature(layer.call).parameters
    if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in taken.values()):
        kwargs = {k: v for k, v in kwargs.items() if k in taken or k not in _CONTEXT}
    return layer(*args, **kwargs)


def is_training(kwargs: dict[str, Any]) -> bool:
    """Return whether a call asks for the behaviour in training, come what may."""
    return kwargs.get("training") is not None and kwargs["training"] is not False


def infer(model: keras.Model, inputs: Any) -> Any:
    """Call a model in inference mode."""
    if "training" in inspect.signature(model.call).parameters:
        return model(inputs, training=False)
    return model(inputs)


def inputs_of(model: keras.Layer) -> Any:
    """Return the symbolic inputs of a model, in the structure that it takes.

    Raises:
        InputError: If the shape of a subclassed model's inputs is not known.
    """
    if isinstance(model, keras.Sequential) and model.inputs:
        return model.inputs[0]
    if getattr(model, "inputs", None):
        return model.input
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise InputError(
            "The shapes of this model's inputs are not known: call it on one batch of "
            f"a single tensor, or make it functional. Received: {model.name!r}"
        )
    return keras.tree.map_shape_structure(
        lambda one: keras.KerasTensor(one, name="inputs"), shape
    )


def relative_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference over the largest magnitude; NaN if any is."""
    actual, expected = actual.astype("float64"), expected.astype("float64")
    magnitude = max(np.abs(expected).max(initial=0), _TINY)
    return float(np.abs(actual - expected).max(initial=0) / magnitude)


def check_equal(
    model: keras.Layer, twin: keras.Layer, pairs: Iterable[tuple[Any, Any]]
) -> None:
    """Compare a model with the form that was made of it, on random input.

    Variables, seeds and the moving statistics of both stay as they are. Where nothing
    can be compared, a warning says why.

    Args:
        model: Model that is built.
        twin: Its other form.
        pairs: Layers of both, each with its counterpart.

    Raises:
        InputError: If they differ; the message names the first layer that does.
    """
    try:
        inputs, expected = _first_run(model)
    except Exception as error:  # whatever a stranger's model raises
        return _not_compared(model, first_line(error))
    if not all(np.isfinite(output).all() for output in expected if _is_real(output)):
        weights = f"weights with NaN or infinity: {some(not_finite(model))}"
        return _not_compared(model, f"its outputs are not finite ({weights})")
    tolerance = _tolerance(model, twin)
    try:
        difference = _difference(_run(twin, inputs), expected)
        reason = f"differ by {difference:.2g} of the largest"
    except Exception as error:
        difference, reason = np.inf, f"cannot be computed ({first_line(error)})"
    if difference <= tolerance:
        return None
    if not _difference(_run(model, inputs), expected) <= tolerance:
        return _not_compared(model, "its outputs are random in inference, too")
    _check_layers(model, pairs, inputs)
    # Roundings add up over layers, and equal scores change places: a form may be as
    # far away as the model is from itself where its input is a little different.
    shaken = _difference(_run(model, _shaken(inputs, tolerance)), expected)
    if difference <= 10 * shaken:
        return None
    raise InputError(
        f"There is no equal form of {model.name!r}: its outputs {reason}, and its "
        "layers agree one by one. The model's own `call`, or a state beside weights "
        "and configuration, does more than they do: make that a layer. "
        f"Received: a {type(model).__name__}"
    )


def _not_compared(model, reason):
    warnings.warn(
        f"The merged {model.name!r} was not compared with the trained one: {reason}. "
        "Compare them on data of your own; merge(model, check=False) skips this.",
        stacklevel=5,
    )


def _first_run(model):
    """Return random inputs that the model takes, and its outputs."""
    symbolic, random = inputs_of(model), np.random.default_rng(0)
    unknown = any(None in x.shape[1:] for x in keras.tree.flatten(symbolic))
    for size in SIZES if unknown else SIZES[:1]:
        values = functools.partial(_values, size, random)
        inputs = keras.tree.map_structure(values, symbolic)
        try:
            return inputs, _run(model, inputs)
        except Exception as error:
            failure = error
    raise failure


def _values(size, random, tensor):
    batch, *shape = tensor.shape
    shape = tuple(one or size for one in shape)
    shape = (batch or (BATCH if math.prod(shape) < LARGE else 1), *shape)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        return keras.ops.convert_to_tensor(np.full(shape, "a"))
    if "float" not in dtype:
        # Such numbers are rows of any table and classes of any task.
        return keras.ops.convert_to_tensor(random.integers(0, 2, shape), dtype)
    return keras.ops.convert_to_tensor(random.normal(size=shape), dtype)


def _shaken(inputs, share):
    """Return inputs of which each float number differs by about a share of itself."""
    random = np.random.default_rng(1)

    def shake(x):
        if "float" not in keras.backend.standardize_dtype(x.dtype):
            return x
        factors = 1 + share * random.normal(size=x.shape)
        return x * keras.ops.convert_to_tensor(factors, x.dtype)

    return keras.tree.map_structure(shake, inputs)


def _run(model, inputs):
    """Return a model's outputs as a list of arrays; no state is kept."""
    with keras.StatelessScope():
        outputs = infer(model, inputs)
    return _arrays(outputs)


def _arrays(outputs):
    return [
        keras.ops.convert_to_numpy(output)
        for output in keras.tree.flatten(outputs)
        if hasattr(output, "shape")
    ]


def _is_real(array):
    return array.dtype.kind in "fV"  # half precision of ml_dtypes is of kind V


def _difference(found, expected):
    """Return the largest relative difference; 1 where integers or shapes differ."""
    if [x.shape for x in found] != [x.shape for x in expected]:
        return 1.0
    worst = 0.0
    for one, other in zip(found, expected):
        if _is_real(other):
            error = relative_difference(one, other)
        else:
            error = float((one != other).any())
        worst = np.maximum(worst, error)  # which lets NaN through
    return float(worst)


def _tolerance(*layers):
    """Return the difference that rounding explains, in the coarsest type of layers."""
    types = {part.compute_dtype for one in layers for part in flat_layers(one)}
    # Accelerators multiply float32 matrices with the digits of float16.
    if "cpu" not in str(getattr(keras.ops.ones(()), "device", "cpu")).lower():
        types.add("float16")
    known = [name for name in types if str(name) in ("float16", "bfloat16")]
    roundings = (float(ml_dtypes.finfo(name).eps) for name in known)
    return max(TOLERANCE, *(ROUNDINGS * one for one in roundings), 0)


def _check_layers(model, pairs, inputs):
    """Raise `InputError` for the first layer whose counterpart answers otherwise.

    Both get what the layer gets within the model, so that no difference is another's.
    """
    found: list[tuple] = []
    with contextlib.ExitStack() as stack:
        for old, new in pairs:
            if old is not model and old is not new and not is_graph(old):
                watched = _watched(old, new, found)
                stack.enter_context(replaced(old, "call", watched))
        _run(model, inputs)
    if found:
        layer, difference, reason = found[0]
        raise InputError(
            f"There is no equal form of {layer.path or layer.name!r} "
            f"({type(layer).__name__}): its outputs differ by {difference:.2g} of the "
            f"largest. {reason}. Received: {model.name!r}"
        )


def _watched(old: Any, new: Any, found: list) -> Callable[..., Any]:
    """Return a layer's `call` that asks its counterpart too and notes a difference."""
    call = old.call

    @functools.wraps(call)
    def both(*args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        if not found:
            try:
                answer = called(new, *args, **kwargs)
                difference = _difference(_arrays(answer), _arrays(outputs))
                reason = _reason(old, kwargs)
            except Exception as error:
                difference, reason = np.inf, f"It does not run: {first_line(error)}"
            if not difference <= _tolerance(old, new):
                found.append((old, difference, reason))
        return outputs

    return both


def _reason(old, kwargs):
    if is_training(kwargs):
        return (
            "It is called with training=True where the model infers, and what it does "
            "in training has no inference form: pass `training` on from the caller"
        )
    if hasattr(old, "merged"):
        return "Its method merged() makes another function of it: mend that"
    return (
        "It holds something beside its weights and its configuration: give it to "
        "get_config(), or to save_own_variables() and load_own_variables()"
    )


def not_finite(model: keras.Layer) -> list[str]:
    """Return the paths of the weights that hold NaN or infinity."""
    values = {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}
    return [
        path
        for path, value in values.items()
        if _is_real(value) and not np.isfinite(value).all()
    ]
