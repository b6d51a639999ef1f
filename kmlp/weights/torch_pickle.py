"""PyTorch checkpoints read without PyTorch, and without running what they pickle.

A checkpoint is a pickle of nested containers whose tensors point into raw storages:
zip members since PyTorch 1.6, bytes after the pickle before. Trainers pickle their
configuration, optimizer and arguments beside the state; here every class other than
containers and tensors becomes an inert `Foreign`, so nothing is imported or called.
"""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from kmlp.errors import InputError
from kmlp.typing import PathLike

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    # Dtypes without a storage class of their own: the tensor names its dtype.
    "UntypedStorage": "uint8",
}
_DTYPES = {*_STORAGE_DTYPES.values(), "uint16", "uint32", "uint64"}


class Storage(NamedTuple):
    """A stretch of one raw storage, counted in elements of its dtype."""

    key: str | int
    dtype: str
    start: int
    length: int


class Tensor(NamedTuple):
    """A tensor as pickled: where its elements lie, before any is read."""

    storage: Storage | None
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str


class Foreign:
    """Stand-in for a class that is not ours: accepts anything, does nothing."""

    __slots__ = ()
    origin = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__new__(cls)

    def __call__(self, *args: Any, **kwargs: Any) -> "Foreign":
        return self

    # Static, since a pickle may also send state to the class: without a
    # `__setstate__` to swallow it, pickle would set attributes on the class.
    @staticmethod
    def __setstate__(*args: Any) -> None:
        pass

    __setitem__ = append = extend = add = __setstate__


class _Mapping(dict):
    """Stand-in for OrderedDict; swallows the `_metadata` that state dicts carry."""

    __slots__ = ()
    __setstate__ = staticmethod(Foreign.__setstate__)


class _RebuildTensor(Foreign):
    def __new__(cls, storage, offset, size, stride, grad=0, hooks=0, metadata=None):
        # Metadata marks a lazily conjugated or negated view of the storage.
        dtype = f"{storage.dtype} with {metadata}" if metadata else storage.dtype
        return Tensor(storage, offset, size, stride, dtype)


class _RebuildTensorOfDtype(Foreign):
    def __new__(cls, storage, offset, size, stride, grad, hooks, dtype, metadata=None):
        return Tensor(storage, offset, size, stride, str(dtype))


class _RebuildParameter(Foreign):
    def __new__(cls, data, *args):
        return data


class _RebuildFromType(Foreign):
    def __new__(cls, rebuild, kind, args, state):
        return rebuild(*args)


class _RebuildOther(Foreign):
    """Quantised, sparse…: kept as a tensor, so that it is refused, not dropped."""

    def __new__(cls, *args):
        return Tensor(None, 0, (), (), cls.origin)


# All are `Foreign`, strings or immutable: no pickle can alter this process with them.
_KNOWN = {
    "collections.OrderedDict": _Mapping,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _RebuildTensor,
    "torch._utils._rebuild_tensor_v2": _RebuildTensor,
    "torch._utils._rebuild_tensor_v3": _RebuildTensorOfDtype,
    "torch._utils._rebuild_parameter": _RebuildParameter,
    "torch._utils._rebuild_parameter_with_state": _RebuildParameter,
    "torch._tensor._rebuild_from_type_v2": _RebuildFromType,
    **{f"torch.{name}": name for name in _DTYPES},
    **{f"torch.{name}": dtype for name, dtype in _STORAGE_DTYPES.items()},
    "torch.storage.UntypedStorage": "uint8",
}


class _Unpickler(pickle.Unpickler):
    """Unpickler that resolves no name outside `_KNOWN`."""

    def __init__(self, file: BinaryIO):
        # Python 2 wrote byte strings that need not be text.
        super().__init__(file, encoding="utf-8", errors="replace")
        self.storage_dtypes: dict[str | int, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        origin = f"{module}.{name}"
        if origin in _KNOWN:
            return _KNOWN[origin]
        if origin.startswith("torch.") and name.endswith("Storage"):
            return origin
        rebuilds = module.startswith("torch.") and name.startswith("_rebuild")
        base = _RebuildOther if rebuilds else Foreign
        return type("Foreign", (base,), {"__slots__": (), "origin": origin})

    def persistent_load(self, saved_id: Any) -> Any:
        match saved_id:
            case ("module", container, *_):
                return container
            case ("storage", str(dtype), str() | int() as key, _, count, *view):
                self.storage_dtypes[key] = dtype
                # The legacy form can hold a view of a storage as a storage.
                if view and view[0]:
                    _, start, count = view[0]
                    return Storage(key, dtype, start, count)
                return Storage(key, dtype, 0, count)
        raise pickle.UnpicklingError("unknown kind of persistent object")


def flat_view(
    raw: bytes | memoryview, dtype: str, order: Literal["<", ">"] = "<"
) -> np.ndarray:
    """View bytes as the numbers in them, bfloat16 as uint16; order is "<" or ">"."""
    stored = np.dtype("uint16" if dtype == "bfloat16" else dtype)
    return np.frombuffer(raw, stored.newbyteorder(order))


def native_copy(view: np.ndarray, dtype: str) -> np.ndarray:
    """Copy a `flat_view`, however strided, to native order; bfloat16 to float32."""
    if dtype == "bfloat16":
        # bfloat16 is the upper half of a float32. In place: an operator would turn an
        # array of no dimensions into a scalar.
        wide = np.array(view, dtype="uint32", order="C")
        wide <<= 16
        return wide.view("float32")
    return np.array(view, dtype=dtype, order="C")


@contextmanager
def opened(
    path: PathLike,
) -> Iterator[tuple[Any, Callable[[str, Tensor], np.ndarray]]]:
    """Open a PyTorch file, zip or legacy form.

    Args:
        path: Path of the file.

    Yields:
        The unpickled tree of containers, `Tensor` and `Foreign`, and a function
        `(name, tensor) -> array` that reads one tensor while the file is open.

    Raises:
        InputError: If a tensor that is asked for is of an unsupported kind.
        Exception: Of many kinds, if the file is damaged.
    """
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
        file.seek(0)
        tree, read, order = (_open_zip if is_zip else _open_legacy)(file)
        # Tensors that share a storage mostly follow one another.
        read = lru_cache(maxsize=1)(read)

        def fetch(name: str, tensor: Tensor) -> np.ndarray:
            if tensor.dtype not in _DTYPES:
                raise InputError(
                    f"Tensor {name!r} must be dense and of a dtype among "
                    f"{sorted(_DTYPES)}. Received: {tensor.dtype}"
                )
            return _read_tensor(name, tensor, read, order)

        yield tree, fetch


def _open_zip(file):
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    pickled = next(n for n in names if n.split("/", 1)[-1] == "data.pkl")
    root = pickled.removesuffix("data.pkl")
    big = f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big"
    tree = _Unpickler(io.BytesIO(archive.read(pickled))).load()
    return tree, lambda key: archive.read(f"{root}data/{key}"), ">" if big else "<"


def _open_legacy(file):
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError("a pickle without PyTorch's magic number")
    for _ in range(2):  # protocol version, system information
        _Unpickler(file).load()
    unpickler = _Unpickler(file)
    tree = unpickler.load()
    spans = {}
    file_size = os.fstat(file.fileno()).st_size
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        dtype = unpickler.storage_dtypes[key]
        spans[key] = file.tell(), count * flat_view(b"", dtype).itemsize
        # Checked for storages nobody asks for too: a cut file is cut for all.
        if count < 0 or sum(spans[key]) > file_size:
            raise ValueError(f"the file ends inside storage {key}")
        file.seek(sum(spans[key]))

    def read(key: str | int) -> bytes:
        start, length = spans[key]
        file.seek(start)
        return file.read(length)

    return tree, read, "<"


def _read_tensor(name, tensor, read, order):
    storage, offset, size, stride, dtype = tensor
    counts = (storage.start, storage.length, offset, *size, *stride)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in counts):
        raise ValueError(f"offset, size or stride of {name!r} are not whole numbers")
    # In bytes, since storage and tensor need not count in the same dtype.
    unit = flat_view(b"", storage.dtype).itemsize
    begin = storage.start * unit
    raw = memoryview(read(storage.key))[begin : begin + storage.length * unit]
    item = flat_view(b"", dtype).itemsize
    flat = flat_view(raw, dtype, order)
    # Strides reach past the buffer without a fault, so nothing later checks this.
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if not all(size):
        return native_copy(flat[:0].reshape(size), dtype)
    if last >= len(flat):
        raise ValueError(f"{name!r} reaches element {last} of a storage of {len(flat)}")
    steps = [step * item for step in stride]
    view = np.lib.stride_tricks.as_strided(flat[offset:], size, steps)
    return native_copy(view, dtype)
