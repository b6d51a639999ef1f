"""Read and write TFLite files, which are flatbuffers, and the metadata in them."""

from typing import Any

import numpy as np

# TFLite's schema wants constants aligned so, which its Python classes forget.
_ALIGNMENT = 16
_IDENTIFIER = b"TFL3"


def operations(model: Any) -> list[list[str]]:
    """Return the names of the operations of each subgraph.

    Args:
        model: Model from `unpacked`.
    """
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}

    def name_of(code: Any) -> str:
        # Codes up to 126 are also stored where old readers look for them.
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        return f"{name} {code.customCode.decode()}" if name == "CUSTOM" else name

    codes = [name_of(code) for code in model.operatorCodes]
    return [[codes[op.opcodeIndex] for op in g.operators] for g in model.subgraphs]


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
