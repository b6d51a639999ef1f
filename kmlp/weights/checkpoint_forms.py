"""Checkpoint files as plain arrays, whatever their form."""

import io
import math
import os
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from kmlp.budget import ITEM, Budget, archive, read_member
from kmlp.errors import InputError
from kmlp.typing import PathLike
from kmlp.weights import hdf5_files, torch_pickle
from kmlp.weights.torch_pickle import flat_view, native_copy

# Where trainers keep the state; averaged weights are taken only for want of others.
_STATE_KEYS = ("model", "state_dict", "model_ema", "state_dict_ema")
_MAX_NESTING = 3
_MOST_MAPPINGS, _MOST_NAMES, _LONGEST_NAME = 10_000, 1_000_000, 500
# Numbers of NumPy; text beside them, such as a configuration, is no tensor.
_NUMBERS = "fiubc"

TORCH, TORCH_LEGACY = "PyTorch file", "PyTorch file (legacy form)"
SAFETENSORS, NPZ, HDF5 = "safetensors file", ".npz file", "HDF5 file"
KERAS, KERAS_WEIGHTS = ".keras checkpoint", "Keras' .weights.h5 file"
FORMS = (TORCH, TORCH_LEGACY, SAFETENSORS, NPZ, HDF5, KERAS, KERAS_WEIGHTS)
_PUBLISHED = "a PyTorch (zip or legacy form), .safetensors, .npz or HDF5 file"
_KERAS_FORMS = {
    KERAS: "A .keras checkpoint holds a whole model: kmlp.create_model(weights=FILE) "
    "or keras.saving.load_model() opens it",
    KERAS_WEIGHTS: "A .weights.h5 file has Keras' names: build its model and call "
    "load_weights()",
}

_SAFETENSORS_DTYPES = {
    f"{code}{bits}": f"{word}{bits}"
    for code, word, sizes in (
        ("F", "float", (64, 32, 16)),
        ("BF", "bfloat", (16,)),
        ("I", "int", (64, 32, 16, 8)),
        ("U", "uint", (64, 32, 16, 8)),
    )
    for bits in sizes
} | {"BOOL": "bool"}


class Checkpoint(NamedTuple):
    """The content of a checkpoint file.

    Attributes:
        state: Contiguous arrays by name, in the file's layout.
        form: One of `FORMS`.
        key: Key of the mapping that was taken, `"outer/inner"`; empty for the whole
            file.
    """

    state: dict[str, np.ndarray]
    form: str
    key: str


def read_state(path: PathLike, key: str | None = None) -> dict[str, np.ndarray]:
    """Read the state (parameter name to array) that a checkpoint file holds.

    A `module.` prefix that all names carry is removed, bfloat16 becomes float32, and
    entries that are not tensors are left out.

    Args:
        path: Path of a PyTorch file (`.pth`, `.pt`, `.bin`, `.tar`),
            `.safetensors`, `.npz` or HDF5 (`.h5`), told apart by content.
        key: In a PyTorch file, the mapping to take, nested ones as
            `"outer/inner"`; by default the first of `model`, `state_dict`,
            `model_ema`, `state_dict_ema` (also inside one another), else the file's
            own mapping. In another file, the prefix `key/` to take; by default
            `state/` or one of those where names carry it, else all names. Groups of an
            HDF5 file are parts of names: data set `a/b/weight` is `a.b.weight`.

    Returns:
        Contiguous arrays by name, in the file's layout.

    Raises:
        InputError: If the file is damaged or in no known form, `key` is not in it,
            or it holds no tensors.
        OSError: If there is no such file.
        ImportError: If a `.safetensors` file is given and the package is missing.
    """
    return read_checkpoint(path, key).state


def read_checkpoint(path: PathLike, key: str | None = None) -> Checkpoint:
    """Read a checkpoint file: as `read_state`, with what it was found to be."""
    path = Path(path)
    form = form_of(path)
    if form in _KERAS_FORMS:
        raise InputError(
            f"{_KERAS_FORMS[form]}. Published checkpoints are {_PUBLISHED}. "
            f"Received: {path}"
        )
    with _damage_reported(path):
        state, key = _READERS[form](path, key)
    if not state:
        raise InputError(
            f"A checkpoint must hold tensors, and none is. Received: {path}"
        )
    if max(map(len, state)) > _LONGEST_NAME:
        raise InputError(
            f"Names of parameters have at most {_LONGEST_NAME} characters. "
            f"Received: {path}, where one has {max(map(len, state)):,}"
        )
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): array for name, array in state.items()}
    return Checkpoint(state, form, key)


def form_of(path: PathLike) -> str:
    """Tell the form of a checkpoint by its content.

    Returns:
        One of `FORMS`. Keras' own forms are among them, which hold no published names.

    Raises:
        InputError: If it is damaged or of no known form.
        OSError: If there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            "A checkpoint is a file, and this is a folder: name a file. "
            f"Received: {path}"
        )
    with open(path, "rb") as file:
        head = file.read(9)
    # A safetensors header is JSON after its 8-byte length.
    if head[8:] == b"{":
        return SAFETENSORS
    # Protocol 2 and later of pickle, as torch.save writes.
    if head[:1] == b"\x80":
        return TORCH_LEGACY
    with _damage_reported(path):
        if head.startswith(b"\x89HDF\r\n\x1a\n"):
            with h5py.File(path, "r") as hdf5:
                return KERAS_WEIGHTS if _is_of_keras(hdf5) else HDF5
        names = _members(path) if head[:2] == b"PK" else []
    if any(name.split("/", 1)[-1] == "data.pkl" for name in names):
        return TORCH
    if any(name.endswith(".npy") for name in names):
        return NPZ
    if "model.weights.h5" in names:
        return KERAS
    begins = f"which begins with {head!r}" if head else "which is empty"
    raise InputError(f"A checkpoint must be {_PUBLISHED}. Received: {path}, {begins}")


def _members(path):
    with archive(path) as members:
        return members.namelist()


@contextmanager
def _damage_reported(path):
    """Turn whatever a damaged file raises into one InputError that names the file."""
    try:
        yield
    except (InputError, ImportError):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            "A checkpoint must be whole and in a known form; this one is damaged, "
            f"incomplete or something else ({reason[:300]}). "
            f"Received: {os.fspath(path)}"
        ) from error


def _read_npz(path, key):
    suffix, budget = ".npy", Budget(path)
    with archive(path) as members:
        files = {name.removesuffix(suffix): name for name in members.namelist()}
        names, key = _select_names(list(files), key, path)
        found = {}
        for short, name in names.items():
            array = _array_of_npy(name, read_member(members, files[name]), budget)
            if array.dtype.kind in _NUMBERS:
                found[short] = array
        return found, key


def _array_of_npy(name, content, budget):
    file = io.BytesIO(content)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, by_columns, dtype = readers[np.lib.format.read_magic(file)](file)
    count, begin = math.prod(shape), file.tell()
    if count * dtype.itemsize > len(content) - begin:
        raise ValueError(
            f"{name!r} declares {count:,} numbers and holds {len(content) - begin:,} "
            "bytes"
        )
    budget.take(ITEM + count * dtype.itemsize, f"the array {name!r}")
    flat = np.frombuffer(content, dtype, count, begin)
    return _native(flat.reshape(shape, order="F" if by_columns else "C"))


def _read_hdf5(path, key):
    budget = Budget(path)
    with h5py.File(path, "r") as file:
        found = hdf5_files.data_sets(file)
        numeric = [n for n in found if file[n].dtype.kind in _NUMBERS]
        names, key = _select_names(numeric, key, path)
        for name in names.values():
            hdf5_files.check(file[name], budget)
        return {
            s.replace("/", "."): _native(file[n][()]) for s, n in names.items()
        }, key


def _native(array):
    array = np.asarray(array)
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _is_of_keras(file):
    """Return whether Keras wrote it: numbered variables, or Keras 2's layer names."""
    if "layer_names" in file.attrs or "model_weights" in file:
        return True
    return any("vars" in name.split("/") for name in hdf5_files.data_sets(file))


def _read_safetensors(path, key):
    try:
        # Not safetensors.numpy, which has no bfloat16.
        from safetensors import deserialize
    except ImportError as error:
        raise ImportError(
            "Reading this file needs the safetensors package: "
            f"`pip install safetensors`. Received: {path}"
        ) from error
    entries = dict(deserialize(path.read_bytes()))
    state, budget = {}, Budget(path)
    names, key = _select_names(list(entries), key, path)
    for short, name in names.items():
        entry = entries[name]
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise InputError(
                f"Tensor {name!r} must be of a dtype among "
                f"{list(_SAFETENSORS_DTYPES)}. Received: {entry['dtype']}"
            )
        budget.take(ITEM + len(entry["data"]), f"the tensor {name!r}")
        dtype = _SAFETENSORS_DTYPES[entry["dtype"]]
        view = flat_view(entry["data"], dtype).reshape(entry["shape"])
        state[short] = native_copy(view, dtype)
    return state, key


def _read_torch(path, key):
    with torch_pickle.opened(path) as (tree, fetch):
        tensors, key = _select_mapping(tree, key, path)
        return {name: fetch(name, tensor) for name, tensor in tensors.items()}, key


def _select_names(names, key, path):
    """Map the names to return to those in a flat file; return the key taken too."""
    for wanted in ("state", *_STATE_KEYS) if key is None else (key,):
        prefix = f"{wanted}/"
        chosen = {n.removeprefix(prefix): n for n in names if n.startswith(prefix)}
        if chosen:
            return chosen, wanted
    if key is not None:
        groups = sorted({name.rpartition("/")[0] for name in names if "/" in name})
        raise InputError(
            f"key must be None or among the prefixes {_few(groups)} of {path}. "
            f"Received: key={key!r}"
        )
    return {name: name for name in names}, ""


def _select_mapping(tree, key, path):
    """Pick the mapping of tensors meant by `key` among those nested in `tree`."""
    states = dict(_mappings(tree))
    found = {"/".join(names): names for names in states if names}
    if key is not None:
        if key not in found:
            raise InputError(
                f"key must be None or among {_few(found)} of {path}. "
                f"Received: key={key!r}"
            )
        return states[found[key]], key
    rank = {name: place for place, name in enumerate(_STATE_KEYS)}
    known = [p for p in states if all(name in rank for name in p)]
    if not known:
        hint = f"; name one of {_few(found)} by key=" if found else ""
        raise InputError(
            f"A checkpoint must hold a mapping of names to tensors{hint}. "
            f"Received: {path}, which holds {_describe(tree)}"
        )
    # A mapping ranks after those inside it: a trainer may keep single tensors, such
    # as the best accuracy, beside the state.
    best = min(known, key=lambda p: [*(rank[name] for name in p), len(rank)])
    return states[best], "/".join(best)


def _mappings(tree):
    """Yield `(names, tensors)` of the mappings in a tree, the outer ones first."""
    pending, names = [((), tree, ())], 0
    for seen, (path, mapping, above) in enumerate(pending):
        if not isinstance(mapping, dict) or any(mapping is outer for outer in above):
            continue
        # A pickled mapping can contain itself, and others it, under many names.
        names += len(mapping)
        if seen > _MOST_MAPPINGS or names > _MOST_NAMES:
            raise ValueError(f"more than {_MOST_MAPPINGS:,} mappings in one another")
        kinds = torch_pickle.Tensor
        tensors = {n: v for n, v in mapping.items() if isinstance(v, kinds)}
        if tensors:
            yield path, tensors
        if len(path) < _MAX_NESTING:
            pending += [
                ((*path, name), value, (*above, mapping))
                for name, value in mapping.items()
                if isinstance(value, dict)
            ]


def _few(names):
    return [name[:100] for name in names][:20]


def _describe(tree):
    if isinstance(tree, torch_pickle.Foreign):
        return f"a pickled {tree.origin[:100]} (save its state_dict() instead)"
    if isinstance(tree, dict):
        return f"entries {_few(tree)[:8]}"
    return f"a {type(tree).__name__}"


_READERS = {
    NPZ: _read_npz,
    HDF5: _read_hdf5,
    SAFETENSORS: _read_safetensors,
    TORCH: _read_torch,
    TORCH_LEGACY: _read_torch,
}
