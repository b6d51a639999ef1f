"""PyTorch checkpoints read without PyTorch, and without running what they pickle.

A checkpoint is a pickle of nested containers whose tensors point into raw storages:
zip members since PyTorch 1.6, bytes after the pickle before. Trainers pickle their
configuration, optimizer and arguments beside the state. The pickle's opcodes are read
one by one by the standard library's disassembler, and a tree is built of containers,
text, numbers and tensors; all else that it names becomes an inert `Foreign`. Nothing is
imported or called, hashed but text, or allocated for a number that the pickle states.
"""

import io
import math
import mmap
import pickletools
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np

from kmlp.budget import ITEM, Budget, archive, read_member
from kmlp.errors import InputError
from kmlp.typing import PathLike

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Opcodes of a pickle, a few microseconds each; large files may have more.
_STEPS, _BYTES_PER_STEP = 1 << 20, 64
_MOST_AXES = 64  # of NumPy

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

    key: str
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


class Foreign(NamedTuple):
    """Stand-in for what is not ours: what it was called, and nothing else."""

    origin: str


def _rebuilt(storage, offset, size, stride, grad=0, hooks=0, metadata=None):
    # Metadata marks a lazily conjugated or negated view of the storage.
    dtype = "a lazily conjugated or negated view" if metadata else storage.dtype
    return Tensor(storage, offset, size, stride, dtype)


def _rebuilt_of_dtype(storage, offset, size, stride, grad, hooks, dtype, metadata=None):
    return Tensor(storage, offset, size, stride, _word(dtype))


def _typed(how, kind, args, state):
    # A subclass's tensor, or one with attributes.
    if isinstance(how, Foreign) and how.origin == _TYPED:
        raise ValueError("a tensor that is typed twice")
    return _made(how, args)


def _mapping(pairs=()):
    # Text is the only key that is ever asked for; others may take years to hash.
    return {key: value for key, value in pairs if isinstance(key, str)}


def _paired(items):
    return zip(items[::2], items[1::2])


_TYPED = "torch._tensor._rebuild_from_type_v2"
# What reducing a name gives of its arguments; names that are not here stay `Foreign`.
_REBUILDS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "torch.Size": lambda sizes: sizes,
    "torch._utils._rebuild_tensor": _rebuilt,
    "torch._utils._rebuild_tensor_v2": _rebuilt,
    "torch._utils._rebuild_tensor_v3": _rebuilt_of_dtype,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    _TYPED: _typed,
}
_NAMES = {
    **{f"torch.{name}": name for name in _DTYPES},
    **{f"torch.{name}": dtype for name, dtype in _STORAGE_DTYPES.items()},
    "torch.storage.UntypedStorage": "uint8",
}


def _word(value):
    """Return text or the name of a stand-in; other things are never printed."""
    if isinstance(value, Foreign):
        return value.origin
    return value if isinstance(value, str) else type(value).__name__


def _key(value):
    """Return a storage's name as text, which is hashed safely."""
    return str(value) if isinstance(value, int) else _word(value)


def _named(module, name):
    origin = f"{_word(module)}.{_word(name)}"
    unknown_storage = origin.startswith("torch.") and name.endswith("Storage")
    return _NAMES.get(origin) or (origin if unknown_storage else Foreign(origin))


def _made(what, args):
    """Return what calling a name makes; only what the table holds makes anything."""
    origin = _word(what)
    if origin in _REBUILDS:
        return _REBUILDS[origin](*args)
    module, _, name = origin.rpartition(".")
    if module.startswith("torch.") and name.startswith("_rebuild"):
        # Quantised, sparse…: kept as a tensor, so that it is refused, not dropped.
        return Tensor(None, 0, (), (), origin)
    return Foreign(origin)


class _Pickle:
    """A pickle's tree, built from its opcodes.

    Args:
        file: File at the beginning of a pickle; it is left behind its end.
        held: Bytes of the whole checkpoint.
    """

    def __init__(self, file: Any, held: int):
        self.storage_dtypes: dict[str, str] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        memo: dict[int, Any] = {}
        self._most = most = _STEPS + held // _BYTES_PER_STEP
        self._passed = 0
        opcodes: Iterator[tuple[Any, Any, Any]] = pickletools.genops(file)
        for step, (opcode, argument, _) in enumerate(opcodes):
            name = opcode.name
            if step > most:
                raise ValueError(f"a pickle of more than {most:,} steps")
            if name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                if argument > step:
                    raise ValueError(
                        f"step {step:,} of its pickle puts at {argument:,}"
                    )
                memo[argument] = self._stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = self._stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                self._stack.append(memo[argument])
            elif opcode.stack_before and name != "STOP":
                raise ValueError(f"a pickle with {name}, as no state has")
            elif opcode.stack_after:  # text or a number
                self._stack.append(argument)
        self.tree = self._stack.pop()

    def _marked(self):
        """Take what lies above the last mark."""
        mark = self._marks.pop()
        taken = self._stack[mark:]
        del self._stack[mark:]
        return taken

    def _taken(self, count):
        taken = self._stack[-count:]
        if len(taken) < count:
            raise ValueError("a pickle that takes more than it has put")
        del self._stack[-count:]
        return taken

    def _pop(self, _):
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _extend(self, items):
        # Stand-ins of other classes keep nothing.
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def _update(self, items):
        if isinstance(self._stack[-1], dict):
            self._stack[-1].update(_mapping(_paired(items)))

    def _make(self, what, args):
        # One long list can be passed again and again.
        parts = (part for part in args if isinstance(part, list | tuple))
        self._passed += len(args) + sum(map(len, parts))
        if self._passed > self._most:
            raise ValueError(f"a pickle that passes more than {self._most:,} arguments")
        self._stack.append(_made(what, args))

    def _persistent(self, _):
        match self._stack.pop():
            case ("module", container, *_):
                self._stack.append(container)
            case ("storage", str(dtype), str() | int() as key, _, count, *view):
                key = _key(key)
                self.storage_dtypes[key] = dtype
                start = 0
                # The legacy form can hold a view of a storage as a storage.
                if view and view[0]:
                    _, start, count = view[0]
                self._stack.append(Storage(key, dtype, start, count))
            case _:
                raise ValueError("an unknown kind of persistent object")


# Opcodes that put a constant, and that do something else.
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Foreign("set"),
}
_ACTIONS: dict[str, Callable[[_Pickle, Any], object]] = {
    "MARK": lambda p, _: p._marks.append(len(p._stack)),
    "POP": _Pickle._pop,
    "POP_MARK": lambda p, _: p._marked(),
    "DUP": lambda p, _: p._stack.append(p._stack[-1]),
    "LIST": lambda p, _: p._stack.append(p._marked()),
    "APPEND": lambda p, _: p._extend(p._taken(1)),
    "APPENDS": lambda p, _: p._extend(p._marked()),
    "TUPLE": lambda p, _: p._stack.append(tuple(p._marked())),
    "TUPLE1": lambda p, _: p._stack.append(tuple(p._taken(1))),
    "TUPLE2": lambda p, _: p._stack.append(tuple(p._taken(2))),
    "TUPLE3": lambda p, _: p._stack.append(tuple(p._taken(3))),
    "DICT": lambda p, _: p._stack.append(_mapping(_paired(p._marked()))),
    "SETITEM": lambda p, _: p._update(p._taken(2)),
    "SETITEMS": lambda p, _: p._update(p._marked()),
    "ADDITEMS": lambda p, _: p._marked(),
    "FROZENSET": lambda p, _: p._make(Foreign("frozenset"), p._marked()),
    "GLOBAL": lambda p, name: p._stack.append(_named(*name.split(" ", 1))),
    "STACK_GLOBAL": lambda p, _: p._stack.append(_named(*p._taken(2))),
    "REDUCE": lambda p, _: p._make(*p._taken(2)),
    "NEWOBJ": lambda p, _: p._make(*p._taken(2)),
    "NEWOBJ_EX": lambda p, _: p._make(*p._taken(3)[:2]),
    "BUILD": lambda p, _: p._taken(1),
    "BINPERSID": _Pickle._persistent,
}


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
        InputError: If a tensor that is asked for is of an unsupported kind, or the
            file declares more than it may.
        Exception: Of many kinds, if the file is damaged.
    """
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
    budget, reads = Budget(path), Budget(path)
    with (_open_zip if is_zip else _open_legacy)(path, budget.held) as found:
        tree, read, order = found

        # Tensors that share a storage mostly follow one another.
        @lru_cache(maxsize=1)
        def counted(key: str) -> bytes:
            raw = read(key)
            reads.take(len(raw), f"tensors that take storage {key} in turns")
            return raw

        def fetch(name: str, tensor: Tensor) -> np.ndarray:
            if tensor.dtype not in _DTYPES:
                raise InputError(
                    f"Tensor {name!r} must be dense and of a dtype among "
                    f"{sorted(_DTYPES)}. Received: {tensor.dtype}"
                )
            return _read_tensor(name, tensor, counted, order, budget)

        yield tree, fetch


@contextmanager
def _open_zip(path, held):
    with archive(path) as members:
        names = members.namelist()
        pickled = next(n for n in names if n.split("/", 1)[-1] == "data.pkl")
        root = pickled.removesuffix("data.pkl")
        written = f"{root}byteorder"
        big = written in names and read_member(members, written) == b"big"
        tree = _Pickle(io.BytesIO(read_member(members, pickled)), held).tree

        def read(key: str) -> bytes:
            return read_member(members, f"{root}data/{key}")

        yield tree, read, ">" if big else "<"


@contextmanager
def _open_legacy(path, held):
    with (
        open(path, "rb") as file,
        # Reads no more than there is, whatever length a pickle states.
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if _Pickle(content, held).tree != _LEGACY_MAGIC:
            raise ValueError("a pickle without PyTorch's magic number")
        for _ in range(2):  # protocol version, system information
            _Pickle(content, held)
        state = _Pickle(content, held)
        spans = {}
        for key in map(_key, _Pickle(content, held).tree):
            (count,) = struct.unpack("<q", content.read(8))
            unit = flat_view(b"", state.storage_dtypes[key]).itemsize
            spans[key] = content.tell(), count * unit
            # Checked for storages nobody asks for too: a cut file is cut for all.
            if count < 0 or sum(spans[key]) > held:
                raise ValueError(f"the file ends inside storage {key}")
            content.seek(sum(spans[key]))

        def read(key: str) -> bytes:
            start, length = spans[key]
            return content[start : start + length]

        yield state.tree, read, "<"


def _read_tensor(name, tensor, read, order, budget):
    storage, offset, size, stride, dtype = tensor
    for sizes in (size, stride):
        if not isinstance(sizes, list | tuple) or len(sizes) > _MOST_AXES:
            raise ValueError(f"size or stride of {name!r} are no list of sizes")
    counts = (storage.start, storage.length, offset, *size, *stride)
    whole = all(type(n) is int and 0 <= n < 1 << 63 for n in counts)
    if len(size) != len(stride) or not whole:
        raise ValueError(f"offset, size or stride of {name!r} are not whole numbers")
    item = flat_view(b"", dtype).itemsize
    # A stride of zero takes one element for as many as it likes.
    held = 4 if dtype == "bfloat16" else item
    budget.take(ITEM + math.prod(size) * held, f"the tensor {name!r}")
    # In bytes, since storage and tensor need not count in the same dtype.
    unit = flat_view(b"", storage.dtype).itemsize
    begin = storage.start * unit
    raw = memoryview(read(storage.key))[begin : begin + storage.length * unit]
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
