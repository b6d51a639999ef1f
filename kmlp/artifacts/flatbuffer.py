"""Metadata in TFLite files, which are flatbuffers."""

import numpy as np

# TFLite's schema wants constants aligned so, which its Python classes forget.
_ALIGNMENT = 16
_IDENTIFIER = b"TFL3"


def operator_names():
    """`{code: name}` of TFLite's operations."""
    from ai_edge_litert import schema_py_generated as schema

    return {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if not name.startswith("_")
    }


def metadata(content, name):
    """A metadata entry of a TFLite file, `None` where there is none such.

    Args:
        content: of the file, bytes.
        name: of the entry.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == name.encode():
            return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    return None


def with_metadata(content, name, value):
    """A TFLite file with a metadata entry, in place of one of the same name.

    Args:
        content: of the file, bytes.
        name: of the entry.
        value: bytes.

    Returns:
        The new file's content.
    """
    model = unpacked(content)
    buffer = type(model.buffers[0])(np.frombuffer(value, np.uint8))
    for entry in model.metadata or ():
        if entry.name == name.encode():
            model.buffers[entry.buffer] = buffer
            break
    else:
        from ai_edge_litert import schema_py_generated as schema

        entry = schema.MetadataT(name, len(model.buffers))
        model.metadata = [*(model.metadata or ()), entry]
        model.buffers.append(buffer)
    return packed(model, len(content) + len(value))


def unpacked(content):
    """A TFLite file as the schema's objects, whose buffers keep their alignment."""
    from ai_edge_litert import schema_py_generated as schema

    class Buffer(schema.BufferT):
        def Pack(self, builder):
            data = None
            if self.data is not None:
                data = _aligned_vector(builder, self.data)
            schema.BufferStart(builder)
            if data is not None:
                schema.BufferAddData(builder, data)
            schema.BufferAddOffset(builder, self.offset)
            schema.BufferAddSize(builder, self.size)
            return schema.BufferEnd(builder)

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    model.buffers = [Buffer(b.data, b.offset, b.size) for b in model.buffers]
    return model


def packed(model, size):
    """The file of such objects; equal vectors, as of zero points, are stored once.

    Args:
        model: from `unpacked`.
        size: about how many bytes the file has.
    """
    import flatbuffers

    class Builder(flatbuffers.Builder):
        def CreateNumpyVector(self, x):
            key = (x.dtype.str, x.tobytes())
            if key not in stored:
                stored[key] = super().CreateNumpyVector(x)
            return stored[key]

    stored = {}
    builder = Builder(size + 1024)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _aligned_vector(builder, data):
    data = np.asarray(data, np.uint8).tobytes()
    builder.StartVector(1, len(data), _ALIGNMENT)
    builder.head -= len(data)
    builder.Bytes[builder.Head() : builder.Head() + len(data)] = data
    return builder.EndVector()
