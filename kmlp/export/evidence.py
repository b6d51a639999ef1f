"""What an artifact is published with: origin, equality with the model, audit."""

import contextlib
import errno
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from kmlp.artifacts.agreement import TOLERANCE, equality
from kmlp.artifacts.detection_difference import apart
from kmlp.artifacts.running import input_specs, run_model
from kmlp.console import quiet
from kmlp.errors import RunError

# How many images the artifact is compared on.
SAMPLES = 4


def refuse_existing(path, overwrite):
    """Raises `FileExistsError` where a file would be replaced that may not be."""
    path = Path(path).expanduser()
    if not overwrite and os.path.lexists(path) and not path.is_dir():
        raise FileExistsError(
            "An export never replaces a file unasked: choose another path, or pass "
            f"overwrite=True (--overwrite). Received: {str(path)!r}"
        )


@contextlib.contextmanager
def named_failures(path):
    """A disk that fails while an artifact is written, in one line that names it."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise _failure(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from (
            error
        )
    except OSError as error:
        # Without a number it is one of ours, which says all.
        if error.errno is None:
            raise
        raise _failure(path, error) from error


def _failure(path, error):
    return type(error)(
        f"The artifact could not be written ({error.strerror}); what was there is "
        "untouched: make room, or choose another place. "
        f"Received: {str(path)!r}"
    )


def compare(model, runner, *, images=None, exact):
    """How far an artifact is from the trained model.

    Args:
        model: the train form, in float32.
        runner: `kmlp.artifacts.running.Runner` of the artifact.
        images: as the model takes them; `None`: random ones.
        exact: whether both must agree within `TOLERANCE`.

    Returns:
        The origin's entry `equality`.

    Raises:
        RunError: they must and do not.
    """
    (spec,) = input_specs(model)
    shape = tuple(s or r for s, r in zip(spec.shape[1:], runner.input_shape[1:]))
    kind = "random images" if images is None else "representative images"
    if images is None:
        random = np.random.default_rng(0).normal(size=(SAMPLES, *shape))
        images = random if spec.dtype.is_floating else np.zeros_like(random)
    images = np.asarray(images[:SAMPLES], spec.dtype.as_numpy_dtype)
    with quiet():  # TensorFlow talks of a detector's integers
        expected, actual = _paired(run_model(model, images), runner(images))
    error = apart(actual, expected)
    if exact and not error <= TOLERANCE:
        raise RunError(
            "The artifact does not equal the trained model: its outputs differ by "
            f"{error:.1e} of the largest, {TOLERANCE:.0e} at most being allowed. A "
            "layer is merged or converted wrongly: merge=False (--train-form) tells "
            f"which of the two. Received: {model.name!r}"
        )
    found = {"images": len(images), "relative_difference": error}
    return equality(found, kind=kind, allowed=TOLERANCE if exact else None)


def _paired(expected, actual):
    """Outputs by name, or by order where the artifact renamed them."""
    if expected.keys() != actual.keys():
        actual = dict(zip(expected, (actual[key] for key in sorted(actual))))
    return expected, actual
