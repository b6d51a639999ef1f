"""Prepare a model, and the place that it goes to, for any export.

Artifacts are float32 unless another precision is asked for: bfloat16 and float16 are
slow or missing on many processors, and the converter to TFLite does not take mixed
precision.
"""

import concurrent.futures
import contextlib
import errno
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import keras
import tensorflow as tf

from kmlp.artifacts import origin
from kmlp.artifacts.running import input_specs
from kmlp.errors import InputError, check_choice
from kmlp.export.offer import names_of
from kmlp.keras_internals import flat_layers
from kmlp.layers.layer import fill, remade
from kmlp.merging import DENSE, rewrite
from kmlp.merging import merge as merge_model
from kmlp.typing import PathLike

Export = TypeVar("Export", bound=Callable[..., Any])


def outside_strategy(function: Export) -> Export:
    """Run a function outside the caller's `tf.distribute` scope, if there is one.

    Variables made within a scope are mirrored, and a graph over mirrored variables
    runs nowhere else. A scope belongs to its thread, so another thread is outside.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not tf.distribute.has_strategy():
            return function(*args, **kwargs)
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            return executor.submit(function, *args, **kwargs).result()

    return call  # type: ignore[return-value]


def check_model(model: keras.Model) -> None:
    """Raise `InputError` where there is no built model to export."""
    if not getattr(model, "built", False):
        raise InputError(
            "Export takes a built keras.Model: call it on data or build() it first. "
            f"Received: {model!r}"
        )


def inference_form(
    model: keras.Model, merge: bool = True, check: bool = True
) -> keras.Model:
    """Return the model in float32 and, with `merge`, in its inference form.

    Args:
        model: Model that is built; it is left untouched.
        merge: Whether it is merged.
        check: Whether the forms are compared on random input, as `kmlp.merge` does.
    """
    # In this order: merged in low precision, the kernels would be rounded to it.
    model = in_float32(model, check)
    return merge_model(model, check) if merge else model


def in_dense_form(
    model: keras.Model, merge: bool, dense: str | None, check: bool = True
) -> tuple[keras.Model, dict[str, Any] | None]:
    """Return the form that is written, and the origin's entry `dense` of it.

    Args:
        model: Model in float32.
        merge: Whether it is merged.
        dense: As in `kmlp.merge`.
        check: Whether the forms are compared on random input.

    Raises:
        InputError: If `dense` is given and `merge` is false.
    """
    check_dense(merge, dense)
    plain = inference_form(model, merge, check)
    if dense is None:
        return plain, None
    twin = merge_model(plain, check, dense)
    return twin, origin.dense_entry(plain, twin, dense)


def described(
    model: keras.Model, merge: bool, preprocessing: Any, class_names: Any
) -> dict[str, Any]:
    """Return the origin of an artifact that is about to be written.

    The arguments are those of the exports.

    Raises:
        InputError: If there are other names than outputs.
    """
    return origin.describe(
        model,
        form=origin.MERGED if merge else origin.TRAIN_FORM,
        preprocessing=preprocessing,
        class_names=names_of(model, input_specs(model), class_names, preprocessing),
    )


def check_dense(merge: bool, dense: str | None) -> None:
    """Raise `InputError` where there is no such choice, or no merging to make it in."""
    check_choice(DENSE, dense=dense)
    if dense is not None and not merge:
        raise InputError(
            "`dense` is a choice of merging: leave it out, or merge (no --train-form). "
            f"Received: dense={dense!r} with merge=False"
        )


def in_float32(model: keras.Model, check: bool = True) -> keras.Model:
    """Return the model with every layer in float32, itself if it is so already.

    Args:
        model: Model that is built, nested models and merged ones included; it is left
            untouched.
        check: Whether both are compared on random input.

    Raises:
        InputError: If a layer computes in another precision whatever its config says,
            or answers otherwise in float32.
    """
    if not _others(model):
        return model
    twin = _in(model, "float32", check)
    if others := _others(twin):
        raise InputError(
            "These layers keep their own precision; build them with the `dtype` that "
            "their config names, so that they can be rebuilt in float32. "
            f"Received: {', '.join(others)}"
        )
    return twin


def in_bfloat16(model: keras.Model) -> keras.Model:
    """Return a model whose layers compute in bfloat16 and keep their weights so.

    Args:
        model: Float32 model from `inference_form`; it is left untouched.
    """
    return _in(model, "bfloat16", check=False)  # rounding is no fault


def _in(model, dtype, check):
    twin = rewrite(model, functools.partial(_rebuilt, dtype), check)
    for layer in flat_layers(twin):
        if isinstance(layer, keras.Model):
            layer.dtype_policy = dtype
    return twin


def _others(model):
    """Return the paths of layers that compute or keep weights in other float types."""
    return [
        layer.path or layer.name
        for layer in flat_layers(model)
        if not isinstance(layer, keras.layers.InputLayer)
        and not _is_float32(layer.dtype_policy)
    ]


def _is_float32(policy):
    types = (policy.compute_dtype, policy.variable_dtype)
    return all(t == "float32" or "float" not in str(t) for t in types)


def _rebuilt(dtype, layer):
    config = layer.get_config()
    retyped = _retyped(config, dtype)
    if retyped == config:
        return None
    twin = remade(layer, retyped)
    fill(twin, layer)
    return twin


def _retyped(value, dtype, key=None):
    """Return a config in a float type; wrappers hold the configs of what they wrap."""
    if key == "dtype" and value is not None:
        policy = keras.dtype_policies.get(value)
        types = (policy.compute_dtype, policy.variable_dtype)
        if all(t == dtype or "float" not in str(t) for t in types):
            return value
        # Quantized layers stay so.
        mode, source, _ = policy.name.rpartition("_from_")
        return f"{mode}{source}{dtype}"
    if isinstance(value, dict):
        return {k: _retyped(v, dtype, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_retyped(v, dtype) for v in value]
    return value


def refuse_existing(path: PathLike, overwrite: bool) -> None:
    """Raise `FileExistsError` where a file would be replaced that may not be."""
    path = Path(path).expanduser()
    if not overwrite and os.path.lexists(path) and not path.is_dir():
        raise FileExistsError(
            "An export never replaces a file unasked: choose another path, or pass "
            f"overwrite=True (--overwrite). Received: {str(path)!r}"
        )


@contextlib.contextmanager
def named_failures(path: PathLike) -> Iterator[None]:
    """Name the artifact in one line where the disk fails while it is written."""
    try:
        yield
    except (OSError, tf.errors.ResourceExhaustedError) as error:
        failure = error
        if not isinstance(error, OSError):
            failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # Without a number it is one of ours, which says all.
        if failure.errno is None:
            raise
        raise type(failure)(
            f"The artifact could not be written ({failure.strerror}); what was there "
            "is untouched: make room, or choose another place. "
            f"Received: {str(path)!r}"
        ) from error
