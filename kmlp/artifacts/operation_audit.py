"""Count the operations of an artifact."""

import collections
import os
from pathlib import Path
from typing import Any

from kmlp.artifacts import saved_model_file
from kmlp.artifacts.flatbuffer import operations
from kmlp.atomic import latest_version
from kmlp.errors import InputError

# The whitelist of "fully connected only", per kind of artifact. An operation that
# is in none of the groups, such as a convolution or a norm's square root, breaks it.
GROUPS = {
    "SavedModel": {
        "fully connected": (
            "MatMul _FusedMatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum"
        ),
        "activation": (
            "Relu Relu6 LeakyRelu Elu Selu Erf Erfc Sigmoid Tanh Softplus Softsign "
            "Softmax LogSoftmax"
        ),
        "arithmetic": (
            "Add AddV2 AddN BiasAdd Sub Mul RealDiv Neg Maximum Minimum Cast Mean"
        ),
        "shape": (
            "Reshape Transpose ExpandDims Squeeze Shape StridedSlice Slice Pad PadV2 "
            "Pack Unpack Prod"
        ),
    },
    "TFLite": {
        "fully connected": "FULLY_CONNECTED BATCH_MATMUL",
        "activation": (
            "GELU RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 LEAKY_RELU ELU HARD_SWISH "
            "LOGISTIC TANH SOFTMAX LOG_SOFTMAX"
        ),
        "arithmetic": "ADD ADD_N SUB MUL DIV NEG MAXIMUM MINIMUM CAST MEAN",
        "shape": (
            "RESHAPE TRANSPOSE EXPAND_DIMS SQUEEZE SHAPE STRIDED_SLICE SLICE PAD PADV2 "
            "PACK UNPACK"
        ),
        "quantisation": "QUANTIZE DEQUANTIZE",
    },
}
# Operations that hold or pass on values without computing any.
_PLUMBING = {
    "Const",
    "DisableCopyOnRead",
    "Identity",
    "IdentityN",
    "NoOp",
    "Placeholder",
    "ReadVariableOp",
    "StopGradient",
    "VarHandleOp",
}


class Audit(dict):
    """`{operation: count}` of an artifact.

    Attributes:
        kind: Kind of artifact, `"SavedModel"` or `"TFLite"`.
        path: Path of what was read.
        other: Operations that are on no list of "fully connected only".
        fully_connected_only: Whether there is none of these, and an FC.
    """

    def __init__(self, counts: dict[str, int], kind: str, path: Path) -> None:
        super().__init__(sorted(counts.items()))
        self.kind = kind
        self.path = path
        self.groups = {
            group: {op: self[op] for op in self if op in names.split()}
            for group, names in GROUPS[kind].items()
        }
        listed = {op for group in self.groups.values() for op in group}
        self.other = {op: count for op, count in self.items() if op not in listed}

    @property
    def fully_connected_only(self) -> bool:
        return bool(self.groups["fully connected"]) and not self.other

    def __str__(self) -> str:
        verdict = "" if self.fully_connected_only else "not "
        lines = [f"{self.kind} {self.path}: {verdict}fully connected only"]
        for group, counts in {**self.groups, "other": self.other}.items():
            if counts:
                ops = ", ".join(f"{op} {count}" for op, count in counts.items())
                lines.append(f"  {group + ':':<16} {ops}")
        return "\n".join(lines)


def audit(path: str | os.PathLike) -> Audit:
    """Count the operations of a SavedModel or a TFLite file.

    Read from the artifact itself. Of a SavedModel, what `serving_default` runs is
    counted, calls followed into the function library; saving and restoring, which
    serving never runs, are not. Constants, variables and other plumbing are no
    operations.

    Args:
        path: Path of a `.tflite` file, a SavedModel's folder, or a folder of versions,
            of which the highest is read.

    Returns:
        An `Audit`: a dictionary `{operation: count}` with `fully_connected_only`
        and `other`, the operations that break it; `str()` gives a table.

    Raises:
        InputError: If there is no such artifact, or it is damaged.

    Reference: RepMLPNet (Ding et al., 2022), Sect. 3: an inference network of
    fully connected layers.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            path = latest_version(path) or path
        if (path / "saved_model.pb").is_file():
            return Audit(_saved_model_operations(path), "SavedModel", path)
    elif path.is_file():
        with open(path, "rb") as file:
            is_tflite = file.read(8)[4:] == b"TFL3"
        if is_tflite:
            parts = operations(path)
            counts = collections.Counter(name for names in parts for name in names)
            return Audit(counts, "TFLite", path)
    raise InputError(
        "There is no artifact to audit: give a SavedModel's folder, the folder of its "
        f"versions, or a .tflite file. Received: {str(path)!r}"
    )


def audited(path: str | os.PathLike) -> dict[str, Any]:
    """Return the origin's entry `audit` of an artifact."""
    found = audit(path)
    return {
        "fully_connected_only": found.fully_connected_only,
        "operations": dict(found),
    }


def _saved_model_operations(folder):
    for graph in saved_model_file.parsed(folder).meta_graphs:
        if "serving_default" in graph.signature_def:
            break
    else:
        raise InputError(
            "This SavedModel has no signature `serving_default` to audit. "
            f"Received: {str(folder)!r}"
        )
    signature = graph.signature_def["serving_default"]
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    outputs = [tensor.name for tensor in signature.outputs.values()]
    return _count(graph.graph_def.node, outputs, functions, {})


def _count(nodes, outputs, functions, known):
    """Count what the outputs depend on, calls as what they call.

    Args:
        nodes: Nodes of a graph or of a function.
        outputs: Names of its outputs.
        functions: Functions by name.
        known: Counts of functions by name; it is added to. One that calls itself
            is counted once.
    """
    nodes = {node.name: node for node in nodes}
    counts = collections.Counter()
    pending, seen = list(outputs), set()
    while pending:
        name = pending.pop().lstrip("^").split(":")[0]
        if name in seen or name not in nodes:  # arguments of a function are no nodes
            continue
        seen.add(name)
        node = nodes[name]
        pending.extend(node.input)
        called = [
            functions[attr.func.name]
            for attr in node.attr.values()
            if attr.func.name in functions
        ]
        for function in called:
            name = function.signature.name
            if name not in known:
                known[name] = collections.Counter()
                ends = (*function.ret.values(), *function.control_ret.values())
                known[name] = _count(function.node_def, ends, functions, known)
            counts += known[name]
        if not called and node.op not in _PLUMBING:
            counts[node.op] += 1
    return counts
