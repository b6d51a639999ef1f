"""Where a TFLite file's time goes: its operations, timed kind by kind.

The interpreter's Python class has no profiler. The operations of one kind are
therefore cut out into a file of their own, whose inputs are all that they read, and
that file is timed. What XNNPACK fuses across kinds is not seen, so that the shares
of a file are nearer to the truth than the sum.
"""

import copy
import dataclasses
import time

import numpy as np

from kmlp.artifacts.flatbuffer import operator_names, packed, unpacked

# Kinds that compute the same in different files, by the name they are reported under.
_FAMILIES = {"FULLY_CONNECTED": "matrix products", "BATCH_MATMUL": "matrix products"}


@dataclasses.dataclass(frozen=True)
class Operations:
    """The operations of one kind in a file.

    Attributes:
        count: how many.
        floats: how many of them give floats.
        outside: how many XNNPACK does not take: they run one by one, as a rule on
            one thread.
        seconds: of one run of them all; the least of the rounds.
    """

    count: int
    floats: int
    outside: int
    seconds: float


def operations(files, threads, rounds=7, clock=None):
    """The operations of TFLite files of one network, by kind, timed in turns.

    Args:
        files: paths.
        threads: of the interpreter.
        rounds: how often each kind is timed.
        clock: as of `measure`.

    Returns:
        A list of `{kind: Operations}`, one per file; matrix products count as one
        kind.
    """
    from kmlp.artifacts.running import repeatable

    clock = clock or time.perf_counter
    found, runs = [], {}
    for index, file in enumerate(files):
        with open(file, "rb") as stream:
            content = stream.read()
        model = unpacked(content)
        kinds = _kinds(model)
        outside = _outside(content, threads)
        graph = model.subgraphs[0]
        floats = [graph.tensors[op.outputs[0]].type == 0 for op in graph.operators]
        found.append({})
        for kind in sorted(set(kinds)):
            own = [i for i, other in enumerate(kinds) if other == kind]
            runs[index, kind] = repeatable(_part(model, own), threads)
            found[index][kind] = (
                len(own),
                sum(floats[i] for i in own),
                sum(i in outside for i in own),
            )
    least = {key: float("inf") for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            start = clock()
            run()
            least[key] = min(least[key], clock() - start)
    return [
        {
            kind: Operations(*counts, least[index, kind])
            for kind, counts in kinds.items()
        }
        for index, kinds in enumerate(found)
    ]


def _kinds(model):
    """The kind of each operation."""
    names = operator_names()
    kinds = []
    for operation in model.subgraphs[0].operators:
        code = model.operatorCodes[operation.opcodeIndex]
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        kinds.append(_FAMILIES.get(name, name))
    return kinds


def _part(model, chosen):
    """A file of some operations, each of which reads inputs and constants."""
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
    """Indices of the operations that the default delegate leaves to the others."""
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
