"""TensorFlow Serving's JSON and tensors.

A request holds either `instances`, one entry per image (row format), or `inputs`, whole
tensors (columnar). Bytes are `{"b64": "…"}`. In answers, strings are text, and bytes
only where the tensor's name ends in `_bytes`.
"""

import base64
import binascii
import json

import numpy as np

from kmlp.errors import InputError

ROW, COLUMNAR = "instances", "inputs"
_ANSWERS = {ROW: "predictions", COLUMNAR: "outputs"}
_BYTES = "_bytes"


def write_request(tensors, form, signature=None):
    """A request's JSON.

    Args:
        tensors: `{name: array}`; strings are bytes.
        form: `ROW` or `COLUMNAR`.
        signature: its name; `None` leaves the choice to the server.
    """
    values = {name: _plain(array, True) for name, array in tensors.items()}
    request = {} if signature is None else {"signature_name": signature}
    return json.dumps({**request, form: _arranged(values, form)})


def read_request(text, inputs_of):
    """What a request asks for.

    Args:
        text: JSON.
        inputs_of: function of a signature's name, `None` where the request has none,
            to `{name: NumPy dtype}`, `object` for strings.

    Returns:
        `(signature or None, {name: array}, ROW or COLUMNAR)`.

    Raises:
        InputError: the server would refuse it.
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
    if COLUMNAR in request:
        return signature, _columns(request[COLUMNAR], inputs), COLUMNAR
    return signature, _rows(request[ROW], inputs), ROW


def write_answer(outputs, form):
    """An answer's JSON.

    Args:
        outputs: `{name: array}`.
        form: that of the request.

    Raises:
        InputError: rows are asked for and the outputs do not have them.
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


def read_answer(text, names):
    """The outputs in an answer, as arrays; strings are text, or bytes by their name.

    Args:
        text: JSON, of either format.
        names: of the signature's outputs; one alone stands bare in the answer.

    Raises:
        InputError: it is no answer, or one of other outputs.
    """
    try:
        answer = json.loads(text)
        (key,) = _ANSWERS.values() & answer.keys()
        values = answer[key]
        if len(names) == 1:
            values = {names[0]: values}
        elif key == _ANSWERS[ROW]:
            values = {name: [row[name] for row in values] for name in names}
        return {name: _array(values[name]) for name in names}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"This is no answer with {', '.join(names)}. Received: {text[:200]!r}"
        ) from error


def _arranged(values, form):
    """Nested lists by name as a request or an answer has them."""
    if len(values) == 1:
        return next(iter(values.values()))
    if form == COLUMNAR:
        return values
    return [dict(zip(values, row)) for row in zip(*values.values())]


def _plain(array, as_bytes):
    array = np.asarray(array)
    if array.dtype.kind not in "OS":
        # A float32 in as many digits as it has.
        return array.tolist()
    plain = [_text(value, as_bytes) for value in array.reshape(-1).tolist()]
    shaped = np.empty(len(plain), object)
    shaped[:] = plain
    return shaped.reshape(array.shape).tolist()


def _text(value, as_bytes):
    if as_bytes:
        return {"b64": base64.b64encode(value).decode()}
    return value.decode("utf-8", errors="replace")


def _array(values):
    array = np.asarray(values)
    if array.dtype != object:
        return array
    decoded = [_unwrapped(value) for value in array.reshape(-1)]
    array = np.empty(len(decoded), object)
    array[:] = decoded
    return array.reshape(np.shape(values))


def _unwrapped(value):
    return _decoded(value) if _is_bytes(value) else value


def _columns(values, inputs):
    if not isinstance(values, dict) or _is_bytes(values):
        values = {_only(inputs): values}
    if missing := [name for name in inputs if name not in values]:
        raise InputError(
            f"'{COLUMNAR}' must have every input. Received: no {', '.join(missing)}"
        )
    return {name: _tensor(values[name], dtype) for name, dtype in inputs.items()}


def _rows(rows, inputs):
    if not isinstance(rows, list) or not rows:
        raise InputError(f"'{ROW}' must be a list that is not empty. Received: {rows}")
    named = [isinstance(row, dict) and not _is_bytes(row) for row in rows]
    if len(set(named)) > 1:
        raise InputError(f"'{ROW}' must be all named or all bare. Received: a mixture")
    if not named[0]:
        return {_only(inputs): _tensor(rows, inputs[_only(inputs)])}
    for index, row in enumerate(rows):
        if row.keys() != inputs.keys():
            raise InputError(
                f"'{ROW}' must have the inputs {', '.join(inputs)}. "
                f"Received: {', '.join(row)} in entry {index}"
            )
    return {
        name: _tensor([row[name] for row in rows], dtype)
        for name, dtype in inputs.items()
    }


def _only(inputs):
    if len(inputs) != 1:
        raise InputError(
            f"Bare values go with one input. Received: {', '.join(inputs)} to fill"
        )
    return next(iter(inputs))


def _tensor(value, dtype):
    """Nested lists as a dense array of one type; a server converts none into another.

    Raises:
        InputError: values of another type, or lists of unequal lengths.
    """
    shape, leaves = _shape(value), []
    _collect(value, shape, leaves)
    dtype = np.dtype(dtype)
    convert = {"O": _string, "f": _number, "b": _truth}.get(dtype.kind, _integer)
    array = np.empty(len(leaves), dtype)
    array[:] = [convert(leaf) for leaf in leaves]
    return array.reshape(shape)


def _shape(value):
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _collect(value, shape, leaves):
    if isinstance(value, list) != bool(shape) or (shape and len(value) != shape[0]):
        raise InputError("Lists must be equally long at each level. Received: others")
    if not shape:
        leaves.append(value)
        return
    for entry in value:
        _collect(entry, shape[1:], leaves)


def _is_bytes(value):
    """Whether a value is an object of `b64` alone."""
    return (
        isinstance(value, dict)
        and value.keys() == {"b64"}
        and isinstance(value["b64"], str)
    )


def _decoded(value):
    try:
        return base64.b64decode(value["b64"], validate=True)
    except binascii.Error as error:
        raise InputError(f"This is no base64. Received: {error}") from error


def _string(value):
    if _is_bytes(value):
        return _decoded(value)
    if not isinstance(value, str):
        raise _type_error(value, "a string")
    return value.encode()


def _number(value):
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _type_error(value, "a number")
    return value


def _integer(value):
    if isinstance(value, bool) or not isinstance(value, int):
        raise _type_error(value, "an integer")
    return value


def _truth(value):
    if not isinstance(value, bool):
        raise _type_error(value, "a truth value")
    return value


def _type_error(value, expected):
    return InputError(f"A value must be {expected}. Received: {str(value)[:80]!r}")
