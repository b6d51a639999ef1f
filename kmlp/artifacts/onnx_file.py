"""Read ONNX files, the metadata in them, and run them."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kmlp.artifacts.locating import ONNX, unreadable
from kmlp.budget import Budget
from kmlp.console import quiet
from kmlp.errors import InputError

if TYPE_CHECKING:  # it imports TensorFlow
    from kmlp.artifacts.runner import Answers, Runner

_NEEDED = (
    "{0} files are read and run by the package `{0}`: python -m pip install "
    '"kmlp[{0}]". Received: {1!r}'
)


def needed(package: str, path: Path) -> ImportError:
    """Return the error of a runtime that is not installed.

    Args:
        package: Name of the extra that brings it, and of its package.
        path: Path of the artifact, or of the one to be written.
    """
    return ImportError(_NEEDED.format(package, str(path)))


def parsed(path: Path) -> Any:
    """Return the protocol buffer of an ONNX file.

    Args:
        path: Path of the file.

    Raises:
        InputError: If it is damaged.
        ImportError: If `onnx` is not installed.
    """
    from google.protobuf.message import DecodeError

    try:
        model = _model(path.read_bytes())
    except ImportError:
        raise needed("onnx", path) from None
    except (DecodeError, ValueError) as error:
        raise unreadable(ONNX, path, error) from error
    if not model.graph.node:
        raise unreadable(ONNX, path, ValueError("it holds no operation"))
    return model


def _model(content):
    import onnx

    return onnx.load_model_from_string(content)


def operations(path: Path) -> list[str]:
    """Return the names of a file's operations, those of functions and branches too.

    Args:
        path: Path of the file.

    Raises:
        InputError: If it is damaged.
    """
    model = parsed(path)
    nodes = [*model.graph.node, *(n for f in model.functions for n in f.node)]
    names = []
    while nodes:
        node = nodes.pop()
        standard = node.domain in ("", "ai.onnx")
        names.append(node.op_type if standard else f"{node.domain}.{node.op_type}")
        for attribute in node.attribute:
            nodes += attribute.g.node
            nodes += [n for graph in attribute.graphs for n in graph.node]
    return names


def check(path: Path) -> None:
    """Refuse a file that reads others, or declares more than it holds.

    Args:
        path: Path of the file.

    Raises:
        InputError: If it does, or is damaged.
    """
    model, budget = parsed(path), Budget(path)
    for tensor in model.graph.initializer:
        if tensor.external_data:
            raise InputError(
                "This ONNX file was not loaded because it keeps weights in other "
                f"files: save it as one. Received: {str(path)!r}"
            )
        size = math.prod(max(dim, 1) for dim in tensor.dims)
        budget.take(8 * size, f"the constant {tensor.name}")


def metadata(content: bytes, name: str) -> bytes | None:
    """Return a metadata entry of an ONNX file, `None` where there is none such.

    Args:
        content: Content of the file.
        name: Name of the entry.
    """
    for entry in _model(content).metadata_props:
        if entry.key == name:
            return entry.value.encode()
    return None


def with_metadata(content: bytes, name: str, value: bytes) -> bytes:
    """Return an ONNX file with a metadata entry, in place of one of the same name.

    Args:
        content: Content of the file.
        name: Name of the entry.
        value: Content of the entry.
    """
    model = _model(content)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    for key, text in {**kept, name: value.decode()}.items():
        model.metadata_props.add(key=key, value=text)
    return model.SerializeToString(deterministic=True)


def load(path: Path, num_threads: int | None = None) -> "Runner":
    """Load an ONNX file, run by ONNX Runtime on the CPU.

    Args:
        path: Path of the file.
        num_threads: Threads of the session; `None`: its own choice.

    Raises:
        ImportError: If `onnxruntime` is not installed.
    """
    from kmlp.artifacts.runner import Runner

    try:
        import onnxruntime
    except ImportError:
        raise needed("onnx", path) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = num_threads or 0
    with quiet():
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    (source,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> "Answers":
        return dict(zip(names, session.run(names, {source.name: images})))

    def shape(value: Any) -> tuple:
        return tuple(size if isinstance(size, int) else None for size in value.shape)

    return Runner(
        run,
        shape(source),
        np.dtype(_TYPES.get(source.type, "O")),
        {output.name: shape(output) for output in session.get_outputs()},
    )


_TYPES = {"tensor(float)": "float32", "tensor(int32)": "int32", "tensor(uint8)": "u1"}
