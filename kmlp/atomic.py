"""Write artifacts that appear whole or not at all.

Everything is written to a hidden folder beside its destination and renamed in one
step. A process holds its hidden folder while it lives; the next one to write there
removes what no process holds.
"""

import contextlib
import dataclasses
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from kmlp.locks import hold
from kmlp.typing import PathLike

_PREFIX = ".kmlp-draft-"


@dataclasses.dataclass
class Draft:
    """A version that is being written.

    Attributes:
        folder: Folder to write to.
        path: Path of the version, once the block has ended without an error.
    """

    folder: Path
    path: Path = None  # type: ignore[assignment]


@contextlib.contextmanager
def new_version(path: PathLike) -> Iterator[Draft]:
    """Write the next version of an artifact as one step.

    ```python
    with new_version("saved_models/resmlp_s12") as draft:
        write_saved_model(model, draft.folder)
    print(draft.path)  # saved_models/resmlp_s12/1
    ```

    Versions are ascending integers, as TensorFlow Serving expects. A version that
    appears meanwhile is never replaced: this one gets the next number.

    Args:
        path: Folder of the versions; made where it is missing.

    Yields:
        A `Draft`. An error within the block leaves no version.

    Raises:
        OSError: If `path` is no folder and cannot become one, or is not writable.
    """
    path = Path(path).expanduser()
    with _hidden_folder(path) as folder:
        draft = Draft(folder)
        yield draft
        draft.path = _publish(folder, path)


@contextlib.contextmanager
def new_file(path: PathLike) -> Iterator[Path]:
    """Write a file as one step; an existing one is replaced.

    Args:
        path: Path of the file; its folder is made where it is missing.

    Yields:
        The path to write to. An error within the block leaves `path` as it was.

    Raises:
        OSError: If `path` is a folder, or its folder is not writable.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(
            "An artifact of one file needs a file's path, and this is a folder. "
            f"Received: path={str(path)!r}"
        )
    with _hidden_folder(path.parent) as folder:
        yield folder / path.name
        os.replace(folder / path.name, path)


def check_writable(path: PathLike) -> None:
    """Raise `OSError` where no version could be written under `path`."""
    with _hidden_folder(Path(path).expanduser()):
        pass


def latest_version(path: PathLike) -> Path | None:
    """Return the folder of the highest version under `path`, or `None`."""
    versions = _versions(Path(path))
    return Path(path) / versions[max(versions)] if versions else None


def _versions(path):
    """Return `{number: name}` of the versions under `path`."""
    names = os.listdir(path) if path.is_dir() else []
    return {int(n): n for n in names if n.isascii() and n.isdecimal()}


def _publish(folder, path):
    while True:
        target = path / str(max(_versions(path), default=0) + 1)
        try:
            os.rename(folder, target)
        except OSError:
            # Another export took the number; a full folder is never replaced.
            if not os.path.lexists(target):
                raise
        else:
            return target


@contextlib.contextmanager
def _hidden_folder(parent):
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        folder, held = _held_folder(parent)
    except OSError as error:
        raise type(error)(
            f"Cannot write to this folder ({error.strerror}): choose one that exists "
            f"or can be made, with write permission. Received: {str(parent)!r}"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # nothing where it was renamed
        held.release()


def _held_folder(parent):
    """Make a new folder and hold it."""
    while True:
        folder = parent / f"{_PREFIX}{uuid.uuid4().hex}"
        # Held before it is there: none takes it for abandoned.
        if held := hold(folder):
            folder.mkdir()
            return folder, held


def _remove_abandoned(parent):
    """Remove the folders, and the files of their locks, that no process holds."""
    for folder in {path.with_suffix("") for path in parent.glob(f"{_PREFIX}*")}:
        if held := hold(folder):
            if held.exclusive:
                shutil.rmtree(folder, ignore_errors=True)
            held.release()
