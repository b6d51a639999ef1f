"""HDF5 files with data sets under published names, in groups or flat."""

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

MAGIC = b"\x89HDF\r\n\x1a\n"


def is_of_keras(path: Path) -> bool:
    """Whether Keras wrote it: numbered variables, or the layers' names of Keras 2."""
    with h5py.File(path, "r") as file:
        if "layer_names" in file.attrs or "model_weights" in file:
            return True
        return any("vars" in name.split("/") for name in _data_sets(file))


def names(path: Path) -> list[str]:
    """Paths of the data sets that hold numbers."""
    with h5py.File(path, "r") as file:
        return [n for n in _data_sets(file) if file[n].dtype.kind in "fiub"]


def arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays of data sets, in native byte order."""
    with h5py.File(path, "r") as file:
        return {name: _read(file[name]) for name in names}


def _read(data_set):
    # Both would read whatever file the checkpoint names.
    if data_set.is_virtual or data_set.external:
        raise ValueError(f"{data_set.name} lies in another file")
    array = np.asarray(data_set[()])
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _data_sets(file):
    """Paths of all data sets; links out of the file are not followed."""
    seen, open_groups = {file}, [("", file)]
    while open_groups:
        prefix, group = open_groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            item = group[name]
            if isinstance(item, h5py.Dataset):
                yield f"{prefix}{name}"
            elif isinstance(item, h5py.Group) and item not in seen:
                seen.add(item)  # a group can contain itself
                open_groups.append((f"{prefix}{name}/", item))
