"""Artifacts appear whole or not at all.

Everything is written to a hidden folder beside its destination and renamed in one
step. A process holds a lock on its hidden folder while it lives; the lock ends with
the process, however that ends, and the next export removes what it left.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import uuid
from pathlib import Path

try:
    import fcntl
except ImportError:  # without locks nothing is ever taken for abandoned
    fcntl = None

_PREFIX = ".kmlp-draft-"


@dataclasses.dataclass
class Draft:
    """A version that is being written.

    Attributes:
        folder: where to write.
        path: where the version lies, once the block has ended without an error.
    """

    folder: Path
    path: Path | None = None


@contextlib.contextmanager
def new_version(path):
    """Writes the next version of an artifact as one step.

    ```python
    with new_version("saved_models/resmlp_s12") as draft:
        write_saved_model(model, draft.folder)
    print(draft.path)  # saved_models/resmlp_s12/1
    ```

    Versions are ascending integers, as TensorFlow Serving expects. A version that
    appears meanwhile is never replaced: this one gets the next number.

    Args:
        path: folder of the versions; made where it is missing.

    Yields:
        A `Draft`. An error within the block leaves no version.

    Raises:
        OSError: `path` is no folder and cannot become one, or is not writable.
    """
    path = Path(path).expanduser()
    with _hidden_folder(path) as folder:
        draft = Draft(folder)
        yield draft
        draft.path = _publish(folder, path)


@contextlib.contextmanager
def new_file(path):
    """Writes a file as one step; an existing one is replaced.

    Args:
        path: of the file; its folder is made where it is missing.

    Yields:
        The path to write to. An error within the block leaves `path` as it was.

    Raises:
        OSError: `path` is a folder, or its folder is not writable.
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


def check_writable(path):
    """Raises `OSError` where no version could be written under `path`."""
    with _hidden_folder(Path(path).expanduser()):
        pass


def latest_version(path):
    """The folder of the highest version under `path`, or `None`."""
    versions = _versions(Path(path))
    return Path(path) / versions[max(versions)] if versions else None


def _versions(path):
    """`{number: name}` of what lies under `path`."""
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
        folder, release = _held_folder(parent)
    except OSError as error:
        raise type(error)(
            f"Cannot write to this folder ({error.strerror}): choose one that exists "
            f"or can be made, with write permission. Received: {str(parent)!r}"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # nothing where it was renamed
        release()


def _held_folder(parent):
    """A new folder and what to call to let go of it."""
    while True:
        folder = parent / f"{_PREFIX}{uuid.uuid4().hex}"
        folder.mkdir()
        release = _hold(folder)
        # Another process may have cleaned the folder away before it was held.
        if release is not None and folder.exists():
            return folder, release
        if release is not None:
            release()


def _hold(folder):
    """Locks a folder; `None` where another process has it."""
    if fcntl is None:
        return lambda: None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        pass  # a file system without locks
    return functools.partial(os.close, descriptor)


def _remove_abandoned(parent):
    if fcntl is None:
        return
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
