"""Open `.keras` files of any origin, by Keras, once they are found sound."""

import io
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras

from kmlp.budget import Budget, archive, parse_json, read_member
from kmlp.console import first_line, quiet
from kmlp.errors import InputError
from kmlp.keras_internals import weights_within
from kmlp.typing import PathLike
from kmlp.weights import hdf5_files

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
# No size, depth or width of a network of ours is larger; other numbers may be.
_LARGEST, _NO_SIZES = 1 << 20, ("seed", "shared_object_id")
_DAMAGED = (
    "it is damaged, or was written by another version of Keras: save the model again"
)


def load_model(path: PathLike) -> keras.Model:
    """Load a `.keras` file, not compiled; nothing in it is run.

    Args:
        path: Path of the file.

    Raises:
        InputError: If it cannot be read; the message names the remedy.
    """
    import kmlp  # noqa: F401, its layers are found by name

    path = Path(path)
    try:
        arrays = _check(path)
        with quiet(), weights_within(Budget(path), arrays):
            return keras.saving.load_model(path, compile=False)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"This checkpoint cannot be read; {_remedy(str(error))}. "
            f"Received: {str(path)!r} ({first_line(error)[:200]})"
        ) from error


def _remedy(reason):
    if "safe_mode=False" in reason:  # of Lambda and all that is like it
        return (
            "it was not loaded because it would run code that it brings along. If you "
            "trust who made it, load it in Python by keras.saving.load_model(FILE, "
            "safe_mode=False), and pass the model on, such as to kmlp.export"
        )
    if "locate class" in reason:
        return (
            "it has layers that neither Keras nor kmlp knows: import them, and call "
            "kmlp.export from Python"
        )
    return _DAMAGED


def _check(path):
    """Check what Keras would not, and return the number of arrays."""
    with archive(path, whole=True) as members:
        names = members.namelist()
        for name in (CONFIG, WEIGHTS):
            if name not in names:
                raise InputError(
                    f"A .keras checkpoint is an archive with {CONFIG} and {WEIGHTS}, "
                    f"and this one has no {name}: save the model again, or read a "
                    f"PyTorch file by kmlp convert. Received: {str(path)!r}"
                )
        _check_sizes(parse_json(read_member(members, CONFIG)))
        content = read_member(members, WEIGHTS)
    return check_weights(io.BytesIO(content), Budget(path))


def check_weights(file: Any, budget: Budget) -> int:
    """Check all arrays of Keras' HDF5 file and return their number.

    Args:
        file: Path, or file in memory.
        budget: Budget of the whole file.

    Raises:
        InputError: If they are more than they may be.
        Exception: Of many kinds, if the file is damaged.
    """
    with h5py.File(file, "r") as opened:
        names = list(hdf5_files.data_sets(opened))
        for name in names:
            hdf5_files.check(opened[name], budget)
    return len(names)


def _check_sizes(part, name="", ours=False):
    """Refuse sizes of a network of ours that make it endless before it has weights."""
    if isinstance(part, dict):
        ours = ours or str(part.get("registered_name")).startswith("kmlp>")
    elif not isinstance(part, list):
        counted = isinstance(part, int) and name not in _NO_SIZES
        if ours and counted and part > _LARGEST:
            raise ValueError(f"{name}={part:,} is no size of a network")
        return
    named = part.items() if isinstance(part, dict) else ((name, p) for p in part)
    for name, value in named:
        _check_sizes(value, name, ours)


def read_json(path: PathLike, name: str) -> dict[str, Any]:
    """Return the dictionary that a member of a `.keras` file holds.

    Args:
        path: Path of the file.
        name: Name of the member, `CONFIG` or `METADATA`.

    Raises:
        InputError: If there is none.
    """
    try:
        with archive(path) as members:
            return parse_json(read_member(members, name))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"This checkpoint's {name} cannot be read; {_DAMAGED}. "
            f"Received: {str(path)!r} ({first_line(error)[:200]})"
        ) from error
