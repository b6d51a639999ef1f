"""Explain, by timing both files' operations, why int8 is not twice as fast."""

import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kmlp.artifacts import flatbuffer
from kmlp.artifacts.flatbuffer import packed, unpacked
from kmlp.artifacts.running import repeatable_tflite
from kmlp.benchmarking.measuring import Clock, cpu_flags, in_turns, seconds
from kmlp.typing import PathLike

# Kinds that compute the same in different files, by the name they are reported under.
_FAMILIES = {"FULLY_CONNECTED": "matrix products", "BATCH_MATMUL": "matrix products"}


@dataclasses.dataclass(frozen=True)
class Operations:
    """The operations of one kind in a file.

    Attributes:
        count: Number of operations.
        floats: Number of them that give floats.
        outside: Number of them that XNNPACK does not take: they run one by one, as a
            rule on one thread.
        seconds: Seconds of one run of them all, the least of the rounds.
    """

    count: int
    floats: int
    outside: int
    seconds: float


def operations(
    files: Sequence[PathLike],
    threads: int,
    rounds: int = 7,
    clock: Clock = time.perf_counter,
) -> list[dict[str, Operations]]:
    """Time the operations of TFLite files of one network, by kind, in turns.

    Args:
        files: Paths.
        threads: Threads of the interpreter.
        rounds: Number of times that each kind is timed.
        clock: Function that returns seconds, as of `measure`.

    Returns:
        Operations `{kind: Operations}` of each file; matrix products count as one kind.
    """
    found: list[dict[str, tuple[int, int, int]]] = []
    turns: dict[tuple[int, str], Callable[[], float]] = {}
    for index, file in enumerate(files):
        content = Path(file).read_bytes()
        model = unpacked(content)
        kinds = _kinds(Path(file))
        outside = _outside(content, threads)
        graph = model.subgraphs[0]
        floats = [graph.tensors[op.outputs[0]].type == 0 for op in graph.operators]
        found.append({})
        for kind in sorted(set(kinds)):
            own = [i for i, other in enumerate(kinds) if other == kind]
            run = repeatable_tflite(_part(model, own), threads)
            turns[index, kind] = functools.partial(seconds, run, clock)
            counts = sum(floats[i] for i in own), sum(i in outside for i in own)
            found[index][kind] = (len(own), *counts)
    times = in_turns(turns, rounds)
    return [
        {
            kind: Operations(*counts, min(values[index, kind] for values in times))
            for kind, counts in kinds.items()
        }
        for index, kinds in enumerate(found)
    ]


def _kinds(path):
    """Return the kind of each operation."""
    names = flatbuffer.operations(path)[0]
    return [_FAMILIES.get(name, name) for name in names]


def _part(model, chosen):
    """Return a file of some operations, each of which reads inputs and constants."""
    graph = copy.copy(model.subgraphs[0])
    graph.operators = [graph.operators[index] for index in chosen]
    read = [t for op in graph.operators for t in op.inputs if t >= 0]
    written = [t for op in graph.operators for t in op.outputs]
    buffers = {graph.tensors[t].buffer for t in read}
    part = copy.copy(model)
    empty = type(model.buffers[0])()
    part.buffers = [
        buffer if index in buffers else empty
        for index, buffer in enumerate(model.buffers)
    ]
    variable = [
        t
        for t in dict.fromkeys(read)
        if model.buffers[graph.tensors[t].buffer].data is None and t not in set(written)
    ]
    graph.inputs = np.array(variable, "int32")
    graph.outputs = np.array(written, "int32")
    part.subgraphs = [graph]
    part.signatureDefs = part.metadata = None
    size = sum(len(b.data) for b in part.buffers if b.data is not None)
    return packed(part, size)


def _outside(content, threads):
    """Return the operations that the default delegate leaves to the others."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    delegates = [op for op in details if op["op_name"] == "DELEGATE"]
    own = [op for op in details if op["op_name"] != "DELEGATE"]
    maker = {t: op["index"] for op in own for t in op["outputs"]}
    reads = {op["index"]: op["inputs"] for op in own}
    inside = set()
    for delegate in delegates:
        ends = set(delegate["inputs"])
        pending = list(delegate["outputs"])
        while pending:
            tensor = pending.pop()
            operation = maker.get(tensor)
            if tensor in ends or operation is None or operation in inside:
                continue
            inside.add(operation)
            pending.extend(reads[operation])
    return set(reads) - inside


BAR = 2.0
# A kind of operation is named where it takes this share of the int8 file's time.
_WORTH_NAMING = 0.05
# Operations that move or rescale values, which a float file leaves alone.
_MOVING = ("QUANTIZE", "DEQUANTIZE", "TRANSPOSE", "PACK", "UNPACK", "CONCATENATION")
# Flags of /proc/cpuinfo for instructions that multiply and add bytes.
_DOT_PRODUCTS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "asimddp")


def why_not_twice(
    files: Sequence[PathLike], threads: int, clock: Clock = time.perf_counter
) -> tuple[str, ...]:
    """Return the reasons, from the two files and from the CPU, a line each.

    Args:
        files: Paths of a network's TFLite files of float32 and of int8.
        threads: Threads of the interpreter.
        clock: Function that returns seconds, as of `measure`.
    """
    float32, int8 = operations(files, threads, clock=clock)
    return reasons(float32, int8, cpu_flags())


def reasons(
    float32: dict[str, Operations],
    int8: dict[str, Operations],
    flags: set[str] | None = None,
) -> tuple[str, ...]:
    """Return the reasons, from what was found.

    Args:
        float32, int8: Operations of the two files by kind.
        flags: Flags of the CPU; `None` where they are not known.
    """
    lines = []
    if flags is not None:
        found = [flag for flag in _DOT_PRODUCTS if flag in flags]
        lines.append(
            f"the CPU multiplies bytes with {', '.join(found)}"
            if found
            else "the CPU has no instruction that multiplies and adds bytes"
        )
    total = sum(kind.seconds for kind in int8.values())
    slow = {
        name: kind
        for name, kind in sorted(int8.items(), key=lambda item: -item[1].seconds)
        if kind.seconds > _WORTH_NAMING * total and _gain(float32, int8, name) < BAR
    }
    lines += [_line(name, float32, int8, total) for name in slow]
    before, after = (
        sum(k.seconds for name, k in kinds.items() if name not in slow)
        for kinds in (float32, int8)
    )
    if slow and after:
        lines.append(f"all other operations are {before / after:.1f}x as fast in int8")
    floats = {n: k.floats for n, k in int8.items() if k.floats and n != "DEQUANTIZE"}
    if floats:
        lines.append("operations that stay float in the int8 file: " + _counts(floats))
    had = {name: kind.count for name, kind in float32.items()}
    added = {
        name: int8[name].count - had.get(name, 0) for name in _MOVING if name in int8
    }
    added = {name: count for name, count in added.items() if count > 1}
    if added:
        lines.append("operations that int8 adds to move values: " + _counts(added))
    return tuple(lines)


def _gain(float32, int8, name):
    """Return how many times as fast a kind is in int8; 0 where float32 lacks it."""
    return float32[name].seconds / int8[name].seconds if name in float32 else 0.0


def _line(name, float32, int8, total):
    kind = int8[name]
    gain = _gain(float32, int8, name)
    speed = f"{gain:.1f}x as fast as in float32" if gain else "absent in float32"
    outside = f", {kind.outside} of them outside XNNPACK" if kind.outside else ""
    return (
        f"{name} ({kind.count}{outside}): {kind.seconds / total:.0%} of int8's time, "
        f"{speed}"
    )


def _counts(counts):
    return ", ".join(f"{name} {count}" for name, count in counts.items())
