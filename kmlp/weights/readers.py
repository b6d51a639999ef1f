"""Checkpoint files as plain arrays: `.npz`, `.safetensors` and PyTorch's forms.

The form is told by the content, since checkpoints circulate under any suffix. Only
numpy is needed (and the `safetensors` package for its own form), and nothing that a
file pickles is ever run.
"""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.weights import _torch_pickle
from kmlp.weights._torch_pickle import damage_reported, flat_view, native_copy

# Where trainers keep the state; averaged weights are taken only for want of others.
_STATE_KEYS = ("model", "state_dict", "model_ema", "state_dict_ema")
_MAX_NESTING = 3

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


def read_state(
    path: str | os.PathLike, key: str | None = None
) -> dict[str, np.ndarray]:
    """Read the state (parameter name to array) that a checkpoint file holds.

    A `module.` prefix that all names carry is removed, bfloat16 becomes float32, and
    entries that are not tensors are left out.

    Args:
        path: file, str or path object: `.npz`, `.safetensors`, or a PyTorch file
            (`.pth`, `.pt`, `.bin`, `.tar`), told apart by content.
        key: None or str. In a PyTorch file, the mapping to take, nested ones as
            `"outer/inner"`; by default the first of `model`, `state_dict`,
            `model_ema`, `state_dict_ema` (also inside one another), else the file's
            own mapping. In a flat file, the prefix `key/` to take; by default
            `state/` where names carry it, else all names.

    Returns:
        Dict of names to contiguous arrays, in the file's layout.

    Raises:
        ValueError: if the file is damaged or in no known form, `key` is not in it,
            or it holds no tensors.
        ImportError: if a `.safetensors` file is given and the package is missing.
    """
    path = Path(path)
    state = _READERS[_form(path)](path, key)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): array for name, array in state.items()}
    return state


def _form(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(9)
    # A safetensors header is JSON after its 8-byte length.
    if head[8:] == b"{":
        return "safetensors"
    # Protocol 2 and later of pickle, as torch.save writes.
    if head[:1] == b"\x80":
        return "torch"
    if head[:2] == b"PK":
        with damage_reported(path), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.split("/", 1)[-1] == "data.pkl" for name in names):
            return "torch"
        if any(name.endswith(".npy") for name in names):
            return "npz"
    raise ValueError(
        "A checkpoint must be an .npz, .safetensors or PyTorch file (zip or legacy "
        f"form). Received: {path}, which begins with {head!r}"
    )


def _read_npz(path: Path, key: str | None) -> dict[str, np.ndarray]:
    with damage_reported(path):
        archive = np.load(path, allow_pickle=False)
    with archive:
        names = _select_names(archive.files, key, path)
        with damage_reported(path):
            arrays = {short: archive[name] for short, name in names.items()}
    # Text beside the arrays, such as a configuration, is no tensor.
    return _non_empty({n: a for n, a in arrays.items() if a.dtype.kind != "U"}, path)


def _read_safetensors(path: Path, key: str | None) -> dict[str, np.ndarray]:
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
    for short, name in _select_names(list(entries), key, path).items():
        entry = entries[name]
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise ValueError(
                f"Tensor {name!r} must be of a dtype among "
                f"{list(_SAFETENSORS_DTYPES)}. Received: {entry['dtype']}"
            )
        dtype = _SAFETENSORS_DTYPES[entry["dtype"]]
        view = flat_view(entry["data"], dtype).reshape(entry["shape"])
        state[short] = native_copy(view, dtype)
    return _non_empty(state, path)


def _read_torch(path: Path, key: str | None) -> dict[str, np.ndarray]:
    with _torch_pickle.opened(path) as (tree, fetch):
        tensors = _select_mapping(tree, key, path)
        return {name: fetch(name, tensor) for name, tensor in tensors.items()}


_READERS = {
    "npz": _read_npz,
    "safetensors": _read_safetensors,
    "torch": _read_torch,
}


def _select_names(names: list[str], key: str | None, path: Path) -> dict[str, str]:
    """Map the names to return to those in a flat file."""
    prefix = f"{'state' if key is None else key}/"
    chosen = {n.removeprefix(prefix): n for n in names if n.startswith(prefix)}
    if not chosen and key is not None:
        groups = sorted({name.rpartition("/")[0] for name in names if "/" in name})
        raise ValueError(
            f"key must be None or among the prefixes {groups} of {path}. "
            f"Received: key={key!r}"
        )
    return chosen or {name: name for name in names}


def _select_mapping(
    tree: Any, key: str | None, path: Path
) -> dict[str, _torch_pickle.Tensor]:
    """Pick the mapping of tensors meant by `key` among those nested in `tree`."""
    states = dict(_mappings(tree))
    found = {"/".join(names): names for names in states if names}
    if key is not None:
        if key not in found:
            raise ValueError(
                f"key must be None or among {list(found)} of {path}. "
                f"Received: key={key!r}"
            )
        return states[found[key]]
    rank = {name: place for place, name in enumerate(_STATE_KEYS)}
    known = [p for p in states if all(name in rank for name in p)]
    if not known:
        hint = f"; name one of {list(found)} by key=" if found else ""
        raise ValueError(
            f"A checkpoint must hold a mapping of names to tensors{hint}. "
            f"Received: {path}, which holds {_describe(tree)}"
        )
    # A mapping ranks after those inside it: a trainer may keep single tensors, such
    # as the best accuracy, beside the state.
    return states[min(known, key=lambda p: [*(rank[name] for name in p), len(rank)])]


def _mappings(
    tree: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, _torch_pickle.Tensor]]]:
    if not isinstance(tree, dict):
        return
    named = {name: value for name, value in tree.items() if isinstance(name, str)}
    tensors = {n: v for n, v in named.items() if isinstance(v, _torch_pickle.Tensor)}
    if tensors:
        yield path, tensors
    # A pickled mapping can contain itself.
    if len(path) < _MAX_NESTING:
        for name, value in named.items():
            yield from _mappings(value, (*path, name))


def _describe(tree: Any) -> str:
    if isinstance(tree, _torch_pickle.Foreign):
        return f"a pickled {tree.origin} (save its state_dict() instead)"
    if isinstance(tree, dict):
        return f"entries {list(tree)[:8]}"
    return f"a {type(tree).__name__}"


def _non_empty(state: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    if not state:
        raise ValueError(
            f"A checkpoint must hold tensors, and none is. Received: {path}"
        )
    return state
