"""Checkpoint files as plain arrays: PyTorch's forms, safetensors, `.npz` and HDF5.

The form is told by the content, since checkpoints circulate under any suffix. Only
numpy and h5py are needed (and the `safetensors` package for its own form), and nothing
that a file pickles is ever run.
"""

import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kmlp.errors import InputError
from kmlp.weights.readers import hdf5, torch_pickle
from kmlp.weights.readers.state_choice import select_mapping, select_names
from kmlp.weights.readers.torch_pickle import damage_reported, flat_view, native_copy

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
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


class Checkpoint(NamedTuple):
    """What a checkpoint file holds.

    Attributes:
        state: names to contiguous arrays, in the file's layout.
        form: of the file, one of `FORMS`.
        key: of the mapping that was taken, `"outer/inner"`; empty for the whole file.
    """

    state: dict[str, np.ndarray]
    form: str
    key: str


def read_state(
    path: str | os.PathLike, key: str | None = None
) -> dict[str, np.ndarray]:
    """Read the state (parameter name to array) that a checkpoint file holds.

    A `module.` prefix that all names carry is removed, bfloat16 becomes float32, and
    entries that are not tensors are left out.

    Args:
        path: file, str or path object: a PyTorch file (`.pth`, `.pt`, `.bin`, `.tar`),
            `.safetensors`, `.npz` or HDF5 (`.h5`), told apart by content.
        key: None or str. In a PyTorch file, the mapping to take, nested ones as
            `"outer/inner"`; by default the first of `model`, `state_dict`,
            `model_ema`, `state_dict_ema` (also inside one another), else the file's
            own mapping. In another file, the prefix `key/` to take; by default
            `state/` or one of those where names carry it, else all names. Groups of an
            HDF5 file are parts of names: data set `a/b/weight` is `a.b.weight`.

    Returns:
        Dict of names to contiguous arrays, in the file's layout.

    Raises:
        InputError: if the file is damaged or in no known form, `key` is not in it,
            or it holds no tensors.
        OSError: if there is no such file.
        ImportError: if a `.safetensors` file is given and the package is missing.
    """
    return read_checkpoint(path, key).state


def read_checkpoint(path: str | os.PathLike, key: str | None = None) -> Checkpoint:
    """Read a checkpoint file: as `read_state`, with what it was found to be."""
    path = Path(path)
    form = form_of(path)
    if form in _KERAS_FORMS:
        raise InputError(
            f"{_KERAS_FORMS[form]}. Published checkpoints are {_PUBLISHED}. "
            f"Received: {path}"
        )
    state, key = _READERS[form](path, key)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): array for name, array in state.items()}
    return Checkpoint(state, form, key)


def form_of(path: str | os.PathLike) -> str:
    """What form of checkpoint a file is, told by its content.

    Returns:
        One of `FORMS`. Keras' own forms are among them, which hold no published names.

    Raises:
        InputError: if it is damaged or of no known form.
        OSError: if there is no such file.
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
    if head.startswith(hdf5.MAGIC):
        with damage_reported(path):
            return KERAS_WEIGHTS if hdf5.is_of_keras(path) else HDF5
    if head[:2] == b"PK":
        with damage_reported(path), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.split("/", 1)[-1] == "data.pkl" for name in names):
            return TORCH
        if any(name.endswith(".npy") for name in names):
            return NPZ
        if "model.weights.h5" in names:
            return KERAS
    begins = f"which begins with {head!r}" if head else "which is empty"
    raise InputError(f"A checkpoint must be {_PUBLISHED}. Received: {path}, {begins}")


_Read = tuple[dict[str, np.ndarray], str]


def _read_npz(path: Path, key: str | None) -> _Read:
    with damage_reported(path):
        archive = np.load(path, allow_pickle=False)
    with archive:
        names, key = select_names(archive.files, key, path)
        with damage_reported(path):
            arrays = {short: archive[name] for short, name in names.items()}
    # Text beside the arrays, such as a configuration, is no tensor.
    arrays = {n: a for n, a in arrays.items() if a.dtype.kind != "U"}
    return _non_empty(arrays, path), key


def _read_hdf5(path: Path, key: str | None) -> _Read:
    with damage_reported(path):
        names = hdf5.names(path)
    names, key = select_names(names, key, path)
    with damage_reported(path):
        arrays = hdf5.arrays(path, names.values())
    state = {short.replace("/", "."): arrays[name] for short, name in names.items()}
    return _non_empty(state, path), key


def _read_safetensors(path: Path, key: str | None) -> _Read:
    try:
        # Not safetensors.numpy, which has no bfloat16.
        from safetensors import deserialize
    except ImportError as error:
        raise ImportError(
            "Reading this file needs the safetensors package: "
            f"`pip install safetensors`. Received: {path}"
        ) from error
    with damage_reported(path):
        entries = dict(deserialize(path.read_bytes()))
    state = {}
    names, key = select_names(list(entries), key, path)
    for short, name in names.items():
        entry = entries[name]
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise InputError(
                f"Tensor {name!r} must be of a dtype among "
                f"{list(_SAFETENSORS_DTYPES)}. Received: {entry['dtype']}"
            )
        dtype = _SAFETENSORS_DTYPES[entry["dtype"]]
        view = flat_view(entry["data"], dtype).reshape(entry["shape"])
        state[short] = native_copy(view, dtype)
    return _non_empty(state, path), key


def _read_torch(path: Path, key: str | None) -> _Read:
    with torch_pickle.opened(path) as (tree, fetch):
        tensors, key = select_mapping(tree, key, path)
        return {name: fetch(name, tensor) for name, tensor in tensors.items()}, key


_READERS = {
    NPZ: _read_npz,
    HDF5: _read_hdf5,
    SAFETENSORS: _read_safetensors,
    TORCH: _read_torch,
    TORCH_LEGACY: _read_torch,
}


def _non_empty(state: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    if not state:
        raise InputError(
            f"A checkpoint must hold tensors, and none is. Received: {path}"
        )
    return state
