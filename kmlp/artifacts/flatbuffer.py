"""Read and write TFLite files, which are flatbuffers, and the metadata in them."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.artifacts.locating import TFLITE, unreadable
from kmlp.budget import ACTIVATIONS, Budget
from kmlp.errors import InputError

# TFLite's schema wants constants aligned so, which its Python classes forget.
_ALIGNMENT = 16
_IDENTIFIER = b"TFL3"
_MOST_AXES = 64
# Bytes of the schema's types that do not take four.
_SIZES = {"FLOAT16": 2, "UINT8": 1, "INT64": 8, "BOOL": 1, "INT16": 2, "INT8": 1}
_SIZES |= {"COMPLEX64": 8, "FLOAT64": 8, "COMPLEX128": 16, "UINT64": 8, "UINT16": 2}


def operations(path: Path) -> list[list[str]]:
    """Return the names of the operations of each subgraph of a TFLite file.

    Args:
        path: Path of the file.

    Raises:
        InputError: If it is damaged.
    """
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}

    def name_of(code: Any) -> str:
        # Codes up to 126 are also stored where old readers look for them.
        name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        return f"{name} {code.CustomCode().decode()}" if name == "CUSTOM" else name

    try:
        model, graphs = _opened(path)
        codes = [
            name_of(model.OperatorCodes(n)) for n in range(model.OperatorCodesLength())
        ]
        return [
            [codes[g.Operators(n).OpcodeIndex()] for n in range(g.OperatorsLength())]
            for g in graphs
        ]
    except Exception as error:
        raise unreadable(TFLITE, path, error) from error


def check(path: Path) -> None:
    """Refuse a TFLite file that takes more memory to run than it may.

    Args:
        path: Path of the file.

    Raises:
        InputError: If it takes more, or is damaged.
    """
    try:
        _, graphs = _opened(path)
        budget = Budget(path, ACTIVATIONS)
        for graph in graphs:
            budget.take(_peak(graph), "what lies between its operations")
    except InputError:
        raise
    except Exception as error:
        raise unreadable(TFLITE, path, error) from error


def _opened(path):
    """Return a file's model and its subgraphs, of which nothing is unpacked."""
    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    model = schema.Model.GetRootAs(content)
    graphs: list[Any] = []
    parts = model.OperatorCodesLength() + model.SubgraphsLength()
    for number in range(min(model.SubgraphsLength(), len(content))):
        graphs.append(graph := model.Subgraphs(number))
        parts += graph.TensorsLength() + graph.OperatorsLength()
        # Many may be one and the same.
        if parts > len(content):
            raise ValueError(f"{parts:,} parts in {len(content):,} bytes")
    return model, graphs


def _peak(graph):
    """Return the most bytes that a subgraph's arrays take at once, constants apart."""
    last = graph.OperatorsLength()
    made = dict.fromkeys(map(graph.Inputs, range(graph.InputsLength())), 0)
    used = dict.fromkeys(map(graph.Outputs, range(graph.OutputsLength())), last)
    for step in range(last):
        operator = graph.Operators(step)
        for number in map(operator.Inputs, range(operator.InputsLength())):
            used[number] = max(used.get(number, 0), step)
        for number in map(operator.Outputs, range(operator.OutputsLength())):
            made.setdefault(number, step)
    changes = [0] * (last + 2)
    for number, step in made.items():
        size = _size(graph.Tensors(number))
        changes[step] += size
        changes[max(used.get(number, step), step) + 1] -= size
    return max(itertools.accumulate(changes))


def _size(tensor):
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.TensorType).items()}
    shape = map(tensor.Shape, range(min(tensor.ShapeLength(), _MOST_AXES)))
    return math.prod(max(n, 1) for n in shape) * _SIZES.get(names[tensor.Type()], 4)


def metadata(content: bytes, name: str) -> bytes | None:
    """Return a metadata entry of a TFLite file, `None` where there is none such.

    Args:
        content: Content of the file.
        name: Name of the entry.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == name.encode():
            return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    return None


def with_metadata(content: bytes, name: str, value: bytes) -> bytes:
    """Return a TFLite file with a metadata entry, in place of one of the same name.

    Args:
        content: Content of the file.
        name: Name of the entry.
        value: Content of the entry.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(content)
    known = {entry.name: entry for entry in model.metadata or ()}
    entry = known.get(name.encode())
    if entry is None:
        entry = schema.MetadataT(name, len(model.buffers))
        model.metadata = [*known.values(), entry]
        model.buffers.append(None)
    buffer = type(model.buffers[0])
    model.buffers[entry.buffer] = buffer(np.frombuffer(value, np.uint8))
    return packed(model, len(content) + len(value))


def unpacked(content: bytes) -> Any:
    """Return a TFLite file as the schema's objects; its buffers keep their alignment.

    Args:
        content: Content of the file.
    """
    from ai_edge_litert import schema_py_generated as schema

    class Buffer(schema.BufferT):
        def Pack(self, builder: Any) -> int:
            data = self.data
            if data is not None:
                data = _aligned_vector(builder, data)
            schema.BufferStart(builder)
            if data is not None:
                schema.BufferAddData(builder, data)
            schema.BufferAddOffset(builder, self.offset)
            schema.BufferAddSize(builder, self.size)
            return schema.BufferEnd(builder)

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    model.buffers = [Buffer(b.data, b.offset, b.size) for b in model.buffers]
    return model


def packed(model: Any, size: int) -> bytes:
    """Return the file of such objects; equal vectors are stored once.

    Args:
        model: Model from `unpacked`.
        size: About how many bytes the file has.
    """
    import flatbuffers

    class Builder(flatbuffers.Builder):
        def CreateNumpyVector(self, x: np.ndarray) -> int:
            key = (x.dtype.str, x.tobytes())
            if key not in stored:
                stored[key] = super().CreateNumpyVector(x)
            return stored[key]

    stored: dict[tuple[str, bytes], int] = {}
    builder = Builder(size + 1024)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _aligned_vector(builder, data):
    data = np.asarray(data, np.uint8).tobytes()
    builder.StartVector(1, len(data), _ALIGNMENT)
    builder.head -= len(data)
    builder.Bytes[builder.Head() : builder.Head() + len(data)] = data
    return builder.EndVector()
