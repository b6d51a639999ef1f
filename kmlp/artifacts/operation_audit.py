"""Count the operations of an artifact."""

import collections
import os
from pathlib import Path
from typing import Any

from kmlp.artifacts import flatbuffer, onnx_file, openvino_model, saved_model_file
from kmlp.artifacts.locating import ONNX, OPENVINO, SAVED_MODEL, TFLITE, locate
from kmlp.errors import InputError

# Names of the groups that break "fully connected only", as do operations of none.
NORM, CONVOLUTION = "norm", "convolution"
# Groups of operations per kind of artifact, and with them the whitelist of "fully
# connected only". Convolution stands for pooling, too.
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
        NORM: (
            "Rsqrt Sqrt Square SquaredDifference FusedBatchNorm FusedBatchNormV2 "
            "FusedBatchNormV3 _FusedBatchNormEx"
        ),
        CONVOLUTION: (
            "Conv2D _FusedConv2D Conv2DBackpropInput DepthwiseConv2dNative "
            "_FusedDepthwiseConv2dNative Conv Conv3D Conv3DBackpropInputV2 "
            "XlaConvV2 AvgPool AvgPool3D MaxPool MaxPoolV2 MaxPool3D"
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
        NORM: "RSQRT SQRT SQUARE SQUARED_DIFFERENCE L2_NORMALIZATION",
        CONVOLUTION: (
            "CONV_2D DEPTHWISE_CONV_2D TRANSPOSE_CONV CONV_3D CONV_3D_TRANSPOSE "
            "AVERAGE_POOL_2D MAX_POOL_2D L2_POOL_2D"
        ),
    },
    "ONNX": {
        "fully connected": "MatMul Gemm Einsum",
        "activation": (
            "Relu LeakyRelu Elu Selu Erf Gelu Sigmoid HardSigmoid HardSwish Tanh "
            "Softplus Softsign Softmax LogSoftmax Clip"
        ),
        "arithmetic": "Add Sum Sub Mul Div Neg Max Min Cast Mean ReduceMean",
        "shape": (
            "Reshape Transpose Unsqueeze Squeeze Shape Slice Split Pad Concat Gather "
            "ReduceProd"
        ),
        NORM: "Sqrt Reciprocal Pow BatchNormalization LayerNormalization",
        CONVOLUTION: (
            "Conv ConvTranspose ConvInteger QLinearConv MaxPool AveragePool LpPool "
            "GlobalMaxPool GlobalAveragePool"
        ),
    },
    "OpenVINO": {
        "fully connected": "MatMul Einsum",
        "activation": (
            "ReLU PReLU Elu Selu Erf Gelu Sigmoid HardSigmoid HSwish Swish Tanh "
            "SoftPlus SoftSign SoftMax LogSoftmax Clamp"
        ),
        "arithmetic": (
            "Add Subtract Multiply Divide Negative Maximum Minimum Convert ReduceMean"
        ),
        "shape": (
            "Reshape Transpose Unsqueeze Squeeze ShapeOf StridedSlice Slice Split "
            "VariadicSplit Pad Concat Gather ReduceProd Broadcast"
        ),
        "quantisation": "FakeQuantize",
        NORM: "Sqrt Power SquaredDifference MVN BatchNormInference NormalizeL2",
        CONVOLUTION: (
            "Convolution GroupConvolution ConvolutionBackpropData BinaryConvolution "
            "GroupConvolutionBackpropData MaxPool AvgPool"
        ),
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
    # ONNX's and OpenVINO's
    "Constant",
    "Parameter",
    "Result",
}


class Audit(dict):
    """`{operation: count}` of an artifact.

    Attributes:
        kind: Kind of artifact, a key of `GROUPS`.
        path: Path of what was read.
        groups: The operations and their counts by group of `GROUPS`.
        other: Operations that are on no list of "fully connected only".
        fully_connected_only: Whether there is none of these, and an FC.
        convolution_free: Whether there is no convolution and no pooling, and an FC;
            a norm's arithmetic, the group `"norm"`, may be there.
    """

    def __init__(self, counts: dict[str, int], kind: str, path: Path) -> None:
        super().__init__(sorted(counts.items()))
        self.kind = kind
        self.path = path
        self.groups = {
            group: {op: self[op] for op in self if op in names.split()}
            for group, names in GROUPS[kind].items()
        }
        breaking = (NORM, CONVOLUTION)
        listed = {op for g in self.groups if g not in breaking for op in self.groups[g]}
        self.other = {op: count for op, count in self.items() if op not in listed}

    @property
    def fully_connected_only(self) -> bool:
        return bool(self.groups["fully connected"]) and not self.other

    @property
    def convolution_free(self) -> bool:
        return bool(self.groups["fully connected"]) and not self.groups[CONVOLUTION]

    def __str__(self) -> str:
        lines = [f"{self.kind} {self.path}: {verdicts(audit_entry(self))}"]
        breaking = {name: self.groups[name] for name in (NORM, CONVOLUTION)}
        named = {op for counts in breaking.values() for op in counts}
        rest = {op: count for op, count in self.other.items() if op not in named}
        allowed = {k: v for k, v in self.groups.items() if k not in breaking}
        for group, counts in {**allowed, "other": rest, **breaking}.items():
            if counts:
                ops = ", ".join(f"{op} {count}" for op, count in counts.items())
                lines.append(f"  {group + ':':<16} {ops}")
        return "\n".join(lines)


def audit(path: str | os.PathLike) -> Audit:
    """Count the operations of an artifact.

    Read from the artifact itself. Of a SavedModel, what `serving_default` runs is
    counted, calls followed into the function library; saving and restoring, which
    serving never runs, are not. Constants, variables and other plumbing are no
    operations.

    Args:
        path: Path of a `.tflite` or `.onnx` file, the folder of a SavedModel or an
            OpenVINO model, or a folder of versions, of which the highest is read.

    Returns:
        An `Audit`: a dictionary `{operation: count}` with `fully_connected_only`
        and `other`, the operations that break it; `str()` gives a table.

    Raises:
        InputError: If there is no such artifact, or it is damaged.
        ImportError: If `onnx` is missing, which reads ONNX files.

    Reference: RepMLPNet (Ding et al., 2022), Sect. 3: an inference network of
    fully connected layers.
    """
    path = Path(path).expanduser()
    try:
        path, form = locate(path)
    except InputError:  # which names other forms
        form = ""
    if form in _COUNTS:
        kind, count = _COUNTS[form]
        counts = collections.Counter(count(path))
        return Audit({n: counts[n] for n in counts if n not in _PLUMBING}, kind, path)
    raise InputError(
        "There is no artifact to audit: give the folder of a SavedModel or an OpenVINO "
        f"model, the folder of its versions, or a .tflite or .onnx file. "
        f"Received: {str(path)!r}"
    )


def audited(path: str | os.PathLike) -> dict[str, Any]:
    """Return the origin's entry `audit` of an artifact."""
    return audit_entry(audit(path))


def audit_entry(found: Audit) -> dict[str, Any]:
    """Return the origin's entry `audit`."""
    return {
        "fully_connected_only": found.fully_connected_only,
        "convolution_free": found.convolution_free,
        "norm_operations": sum(found.groups[NORM].values()),
        "operations": dict(found),
    }


def verdicts(entry: dict[str, Any]) -> str:
    """Put the verdicts of an entry `audit` into words, a norm's arithmetic counted."""
    only = "" if entry.get("fully_connected_only") else "not "
    words = [f"{only}fully connected only"]
    if not entry.get("fully_connected_only") and entry.get("convolution_free"):
        words.append("convolution free")
    if count := entry.get("norm_operations"):
        words.append(f"{count} operations of norms")
    return ", ".join(words)


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


def _tflite_operations(path):
    return [name for names in flatbuffer.operations(path) for name in names]


# Form of an artifact -> its kind, and what gives its operations.
_COUNTS = {
    SAVED_MODEL: ("SavedModel", _saved_model_operations),
    TFLITE: ("TFLite", _tflite_operations),
    ONNX: ("ONNX", onnx_file.operations),
    OPENVINO: ("OpenVINO", openvino_model.operations),
}
