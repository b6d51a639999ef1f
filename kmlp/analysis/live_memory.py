"""Count the bytes of activations that are alive at once while a model runs."""

import collections
import itertools
import math
import re

import keras

from kmlp.analysis.tracing import Trace, Value, names

# Nothing is computed: the output is the input, or the same values under another shape.
_VIEWS = names(
    "ActivityRegularization AlphaDropout ConvertToTensor Copy Dropout ExpandDims "
    "Flatten GaussianDropout GaussianNoise Identity Ravel Reshape SpatialDropout1D "
    "SpatialDropout2D SpatialDropout3D Squeeze StopGradient View"
)
# Each value of the output needs one value of each input.
_ELEMENTWISE = names(
    "Absolute Activation Add Average BatchNorm BatchNormalization Cast Ceil Celu Clip "
    "Divide ELU Elu Equal Erf Exp Expm1 Floor GELU Gelu Greater GreaterEqual HardSilu "
    "HardSigmoid HardTanh LeakyReLU LeakyRelu Less LessEqual Log Log1p LogicalAnd "
    "LogicalNot LogicalOr Maximum Minimum Multiply Negative NotEqual PReLU Power ReLU "
    "Reciprocal Relu Relu6 Rescaling Rsqrt Selu Sigmoid Sign Silu Softplus Softsign "
    "Sqrt Square Subtract Tanh TrueDivide Where"
)
# The output may take the input's place, but the whole input is read first.
_IN_PLACE = names(
    "GroupNormalization LayerNorm LayerNormalization LogSoftmax Normalize "
    "RMSNormalization RMSNorm Softmax UnitNormalization"
)


def live_bytes(trace: Trace) -> list[int]:
    """Return the bytes of activations that are alive at the peak of each layer's call.

    A tensor lives from the operation that computes it to the last that reads it, the
    images from the start, the model's outputs to the end. Operations run one after
    another in the trace's order; dropout does nothing. Reshapes are views; the output
    of an elementwise operation, norm or softmax takes the place of an input of its size
    that nobody reads any more. Elementwise operations in sequence within a layer run as
    one, as compilers and fused kernels run them: what passes between them is never
    stored. Transposed, cut out and concatenated tensors are copies. Weights, and what a
    kernel needs for itself, are not counted.

    Args:
        trace: What runs when the model is applied in inference.

    Returns:
        Bytes of each call in `trace.calls`; the largest are the model's.
    """
    roots = _storage(trace)
    steps = [
        (i, *step)
        for i, call in enumerate(trace.calls)
        for step in _steps(call.operations, trace.values)
    ]
    last: dict[int, int] = {}
    for time, (_, operations, _) in enumerate(steps):
        last |= {roots[v]: time for op in operations for v in op.inputs}
    last |= {roots[v]: len(steps) for v in trace.outputs}
    sizes: collections.Counter[int] = collections.Counter()
    for value, root in enumerate(roots):
        sizes[root] = max(sizes[root], _bytes(trace.values[value]))

    peaks = [0] * len(trace.calls)
    alive = {roots[v] for v in trace.inputs}
    held = sum(sizes[root] for root in alive)
    for time, (call, operations, in_place) in enumerate(steps):
        read = {roots[v] for op in operations for v in op.inputs}
        written = {roots[v] for op in operations for v in op.outputs}
        # Values passed between fused operations are not stored.
        stored = {r for r in written if r not in read or last[r] > time}
        new = collections.Counter(sizes[r] for r in stored)
        if in_place:
            ended = (sizes[r] for r in alive & read if last[r] == time)
            new -= collections.Counter(ended)
        peak = held + sum(size * count for size, count in new.items())
        peaks[call] = max(peaks[call], peak)
        alive |= stored
        alive = {r for r in alive if last.get(r, -1) > time}
        held = sum(sizes[r] for r in alive)
    return peaks


def _steps(operations, values):
    """Yield a call's operations as `(operations that run as one, whether in place)`.

    Neighbouring elementwise ones run as one; views do not run.
    """
    computed = (op for op in operations if not _is_view(op, values))
    for fused, run in itertools.groupby(computed, lambda op: op.kind in _ELEMENTWISE):
        if fused:
            yield tuple(run), True
        else:
            yield from (((op,), op.kind in _IN_PLACE) for op in run)


def _storage(trace):
    """Return, for every value, the value whose memory it shows: itself if no view."""
    roots = list(range(len(trace.values)))
    for call in trace.calls:
        for op in call.operations:
            if _is_view(op, trace.values):
                roots[op.outputs[0]] = roots[op.inputs[0]]
    return roots


def _is_view(op, values):
    if op.kind == "Cast":
        return values[op.inputs[0]].dtype == values[op.outputs[0]].dtype
    return op.kind in _VIEWS and len(op.inputs) == len(op.outputs) == 1


def _bytes(value):
    """Return the bytes of a value, counting sizes that are unknown as one."""
    if value.dtype == "string":
        return 0  # of no known size
    bits = 8 if value.dtype == "bool" else int(re.search(r"\d+", value.dtype)[0])
    return math.prod(1 if size is None else size for size in value.shape) * bits // 8


def weight_bytes(model: keras.Model) -> int:
    """Return the bytes of a model's weights and moving statistics, as they are held."""
    return sum(
        _bytes(Value(tuple(w.shape), keras.backend.standardize_dtype(w.dtype)))
        for w in model.weights
    )
