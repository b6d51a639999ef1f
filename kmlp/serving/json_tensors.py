"""TensorFlow Serving's JSON and tensors.

A request holds either `instances`, one entry per image (row format), or `inputs`, whole
tensors (columnar). Bytes are `{"b64": "…"}`. In answers, strings are text, and bytes
only where the tensor's name ends in `_bytes`.
"""

import base64
import binascii
import functools
import json
from collections.abc import Callable, Sequence

import numpy as np

from kmlp.errors import InputError

ROW, COLUMNAR = "instances", "inputs"
_ANSWERS = {ROW: "predictions", COLUMNAR: "outputs"}
_BYTES = "_bytes"


def write_request(
    tensors: dict[str, np.ndarray], form: str, signature: str | None = None
) -> str:
    """Return a request's JSON.

    Args:
        tensors: Inputs by name; strings are bytes.
        form: Format, `ROW` or `COLUMNAR`.
        signature: Name of the signature; `None` leaves the choice to the server.
    """
    values = {name: _plain(array, True) for name, array in tensors.items()}
    request = {} if signature is None else {"signature_name": signature}
    return json.dumps({**request, form: _arranged(values, form)})


def read_request(
    text: str | bytes, inputs_of: Callable[[str | None], dict[str, np.dtype]]
) -> tuple[str | None, dict[str, np.ndarray], str]:
    """Return what a request asks for.

    Args:
        text: JSON.
        inputs_of: Function of a signature's name, `None` where the request has none,
            to the types of its inputs by name, `object` for strings.

    Returns:
        The signature or `None`, the inputs by name, and `ROW` or `COLUMNAR`.

    Raises:
        InputError: If the server would refuse it.
    """
    try:
        request = json.loads(text)
    except ValueError as error:
        raise InputError(f"The request is no JSON. Received: {error}") from error
    if not isinstance(request, dict):
        raise InputError("The request must be an object. Received: another value")
    signature = request.get("signature_name")
    if not isinstance(signature, str | None):
        raise InputError(f"'signature_name' must be text. Received: {signature!r}")
    inputs = inputs_of(signature)
    if (ROW in request) == (COLUMNAR in request):
        raise InputError(
            f"A request has either '{ROW}' or '{COLUMNAR}'. "
            f"Received: {', '.join(request) or 'neither'}"
        )
    form = ROW if ROW in request else COLUMNAR
    values = (_rows if form == ROW else _columns)(request[form], inputs)
    tensors = {name: _tensor(values[name], dtype) for name, dtype in inputs.items()}
    return signature, tensors, form


def write_answer(outputs: dict[str, np.ndarray], form: str) -> str:
    """Return an answer's JSON.

    Args:
        outputs: Outputs by name.
        form: Format, `ROW` or `COLUMNAR`, as the request has it.

    Raises:
        InputError: If rows are asked for and the outputs do not have them.
    """
    if form == ROW:
        counts = {array.shape[:1] for array in outputs.values()}
        if len(counts) != 1 or counts & {(), (0,)}:
            raise InputError(
                "Outputs must have the same number of rows, at least 1. Received: "
                + ", ".join(f"{name} {array.shape}" for name, array in outputs.items())
            )
    values = {
        name: _plain(array, name.endswith(_BYTES)) for name, array in outputs.items()
    }
    return json.dumps({_ANSWERS[form]: _arranged(values, form)})


def read_answer(text: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the outputs in an answer by name.

    Strings are text, or bytes where the name says so.

    Args:
        text: JSON, of either format.
        names: Names of the signature's outputs; one alone stands bare in the answer.

    Raises:
        InputError: If it is no answer, or one of other outputs.
    """
    try:
        answer = json.loads(text)
        (key,) = _ANSWERS.values() & answer.keys()
        values = answer[key]
        if len(names) == 1:
            values = {names[0]: values}
        elif key == _ANSWERS[ROW]:
            values = {name: [row[name] for row in values] for name in names}
        arrays = {name: np.asarray(values[name]) for name in names}
        return {
            name: _each(_unwrapped, array) if array.dtype == object else array
            for name, array in arrays.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"This is no answer with {', '.join(names)}. Received: {text[:200]!r}"
        ) from error


def _arranged(values, form):
    """Return nested lists by name as a request or an answer has them."""
    if len(values) == 1:
        return next(iter(values.values()))
    if form == COLUMNAR:
        return values
    return [dict(zip(values, row)) for row in zip(*values.values())]


def _each(function, array, dtype=object):
    """Return an array of what a function gives for each entry of another."""
    found = np.empty(array.size, dtype)
    found[:] = [function(value) for value in array.reshape(-1).tolist()]
    return found.reshape(array.shape)


def _plain(array, as_bytes):
    array = np.asarray(array)
    if array.dtype.kind not in "OS":
        # A float32 in as many digits as it has.
        return array.tolist()
    return _each(functools.partial(_text, as_bytes=as_bytes), array).tolist()


def _text(value, as_bytes):
    if as_bytes:
        return {"b64": base64.b64encode(value).decode()}
    return value.decode("utf-8", errors="replace")


def _columns(values, inputs):
    """Return the values in `inputs` by name."""
    if not isinstance(values, dict) or _is_bytes(values):
        return {_only(inputs): values}
    if missing := [name for name in inputs if name not in values]:
        raise InputError(
            f"'{COLUMNAR}' must have every input. Received: no {', '.join(missing)}"
        )
    return values


def _rows(rows, inputs):
    """Return the values in `instances` by name."""
    if not isinstance(rows, list) or not rows:
        raise InputError(f"'{ROW}' must be a list that is not empty. Received: {rows}")
    named = [isinstance(row, dict) and not _is_bytes(row) for row in rows]
    if len(set(named)) > 1:
        raise InputError(f"'{ROW}' must be all named or all bare. Received: a mixture")
    if not named[0]:
        return {_only(inputs): rows}
    for index, row in enumerate(rows):
        if row.keys() != inputs.keys():
            raise InputError(
                f"'{ROW}' must have the inputs {', '.join(inputs)}. "
                f"Received: {', '.join(row)} in entry {index}"
            )
    return {name: [row[name] for row in rows] for name in inputs}


def _only(inputs):
    if len(inputs) != 1:
        raise InputError(
            f"Bare values go with one input. Received: {', '.join(inputs)} to fill"
        )
    return next(iter(inputs))


def _tensor(value, dtype):
    """Return nested lists as a dense array; a server converts no type into another.

    Raises:
        InputError: If values have another type, or lists unequal lengths.
    """
    array = np.array(value, object)
    # NumPy stops where lists differ, and leaves them as entries.
    if any(isinstance(entry, list) for entry in array.flat):
        raise InputError("Lists must be equally long at each level. Received: others")
    dtype = np.dtype(dtype)
    return _each(functools.partial(_entry, kind=dtype.kind), array, dtype)


# JSON's types for NumPy's kinds of numbers, and their names in messages.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "O": ((str,), "a string"),
    "f": ((int, float), "a number"),
    "b": ((bool,), "a truth value"),
}


def _entry(value, kind):
    """Return a value of JSON as an entry of an array of a kind."""
    if kind == "O" and _is_bytes(value):
        return _unwrapped(value)
    types, words = _TYPES.get(kind, ((int,), "an integer"))
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "b"):
        raise InputError(f"A value must be {words}. Received: {str(value)[:80]!r}")
    return value.encode() if kind == "O" else value


def _is_bytes(value):
    """Return whether a value is an object of `b64` alone."""
    return (
        isinstance(value, dict)
        and value.keys() == {"b64"}
        and isinstance(value["b64"], str)
    )


def _unwrapped(value):
    """Return the bytes of an object of `b64`, anything else as it is."""
    if not _is_bytes(value):
        return value
    try:
        return base64.b64decode(value["b64"], validate=True)
    except binascii.Error as error:
        raise InputError(f"This is no base64. Received: {error}") from error
