"""The state of a run on disk: written whole or not at all, read only where sound.

A checkpoint is one `.npz` file with a manifest of its arrays: names, shapes, dtypes and
checksums. A file that was cut short or altered is told from a sound one when it is
read.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.artifacts.locating import UNFINISHED as PREFIX
from kmlp.atomic import check_writable, new_file
from kmlp.errors import InputError, RunError
from kmlp.locks import hold
from kmlp.typing import PathLike

KEPT = 3
_MANIFEST, _CURVE = "manifest", "curve/"
_PROGRESS = "progress"  # of earlier versions, in place of the manifest


@contextlib.contextmanager
def writing(what: str, path: Path) -> Iterator[Path]:
    """Write a file of a run as one step.

    Args:
        what: What it holds, in words that begin a sentence.
        path: Path of the file.

    Yields:
        The path to write to.

    Raises:
        RunError: If it cannot be written; an earlier file is untouched.
    """
    try:
        with new_file(path) as draft:
            yield draft
    except OSError as error:
        raise RunError(
            f"{what} cannot be written ({error}): make room, then give the same "
            f"command to go on. Received: {str(path)!r}"
        ) from error


@contextlib.contextmanager
def about_output() -> Iterator[None]:
    """Say of an error that it is about the folder of the results."""
    try:
        yield
    except OSError as error:
        raise InputError(f"--output: {error}") from error


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` steps.

    Attributes:
        step: Number of optimizer steps done.
        arrays: All of the engine's state by name.
        progress: What the loop knows besides, as JSON has it.
        curve: Columns of the steps' curve by name; `None` in checkpoints of earlier
            versions, which have none.
    """

    step: int
    arrays: dict[str, np.ndarray]
    progress: dict[str, Any]
    curve: dict[str, np.ndarray] | None = None


class Checkpoints:
    """The newest checkpoints of a run.

    Args:
        folder: Folder that holds them, made where it is missing.
    """

    def __init__(self, folder: PathLike):
        self.folder = Path(folder)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and remove older ones beyond `KEPT`.

        Raises:
            RunError: If it cannot be written; those before it are untouched.
        """
        path = self.folder / f"step-{checkpoint.step:010d}.npz"
        draft = path.with_suffix(".unfinished")
        curve = checkpoint.curve or {}
        members: dict[str, Any] = {_CURVE + name: curve[name] for name in curve}
        members |= checkpoint.arrays
        members[_MANIFEST] = _manifest(members, checkpoint.progress)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(draft, "wb") as file:
                np.savez(file, **members)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
            _sync(self.folder)
        except OSError as error:
            draft.unlink(missing_ok=True)
            last = self._newest()
            kept = f"the last good state is {last[-1].name}" if last else "none is kept"
            raise RunError(
                f"A checkpoint cannot be written ({error.strerror or error}), {kept}: "
                "make room or mend the disk, then give the same command to go on. "
                f"Received: {str(self.folder)!r}"
            ) from error
        for old in self._newest()[:-KEPT]:
            old.unlink(missing_ok=True)

    def latest(self) -> Checkpoint | None:
        """Return the newest sound checkpoint, or `None` where there is none at all.

        A damaged one is reported, set aside as `.damaged`, and the one before used.

        Raises:
            RunError: If there are checkpoints, and all are damaged.
            OSError: If a damaged one cannot be set aside.
        """
        for leftover in self.folder.glob("*.unfinished"):
            leftover.unlink(missing_ok=True)
        paths = self._newest()
        for path in reversed(paths):
            try:
                return _read(path)
            except Exception as error:  # whatever damage makes its readers raise
                reason = " ".join(str(error).split()) or type(error).__name__
                aside = path.with_suffix(".damaged")
                os.replace(path, aside)
                print(
                    f"Checkpoint {path} is damaged ({reason}): set aside as "
                    f"{aside.name}; using the one before.",
                    file=sys.stderr,
                )
        if paths or any(self.folder.glob("*.damaged")):
            raise RunError(
                "Every checkpoint of this run is damaged: restore one from a copy, or "
                f"pass --fresh to begin anew. Received: {str(self.folder)!r}"
            )
        return None

    def _newest(self):
        """Return the paths from the oldest to the newest."""
        return sorted(self.folder.glob("step-*.npz"))


def _manifest(members, progress):
    """Return the list of a checkpoint's arrays, and the progress, as an array."""
    about = {name: _about(np.asarray(array)) for name, array in members.items()}
    text = json.dumps({"arrays": about, "progress": progress}).encode()
    return np.frombuffer(b"%08x" % zlib.crc32(text) + text, np.uint8)


def _about(array):
    """Return shape, dtype and checksum of an array.

    Damage comes by chance, so that a CRC will do: of 1.4 GB it takes a third of a
    second, SHA-256 more than twice as long.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    return [list(array.shape), array.dtype.str, zlib.crc32(flat)]


def _read(path):
    step = int(path.stem.removeprefix("step-"))
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if _PROGRESS in arrays:
        progress = json.loads(arrays.pop(_PROGRESS).tobytes())
        return Checkpoint(step, arrays, progress)
    written = arrays.pop(_MANIFEST).tobytes()
    if b"%08x" % zlib.crc32(written[8:]) != written[:8]:
        raise ValueError("its manifest is altered")
    manifest = json.loads(written[8:])
    about = manifest["arrays"]
    for name in sorted(about.keys() | arrays.keys()):
        if name not in arrays or about.get(name) != _about(arrays[name]):
            what = "altered" if name in arrays else "missing"
            raise ValueError(f"its array {name} is {what}")
    columns = [name for name in about if name.startswith(_CURVE)]
    curve = {name.removeprefix(_CURVE): arrays.pop(name) for name in columns}
    return Checkpoint(step, arrays, manifest["progress"], curve)


def _sync(folder):
    """Make a rename last through a loss of power, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


CHECKPOINTS = "checkpoints"


class RunFolder:
    """The folder of what a run needs to go on, until it is published.

    The folder's name follows from everything that decides the result, so that the
    same command finds its own run again and another command never does.

    Args:
        parent: Folder of the architecture's versions.
        identity: What decides the result, as JSON has it.

    Attributes:
        path: Path of the folder.
    """

    def __init__(self, parent: PathLike, identity: dict[str, Any]):
        text = json.dumps(identity, sort_keys=True)
        mark = hashlib.sha256(text.encode()).hexdigest()[:8]
        self.path = Path(parent) / f"{PREFIX}{mark}"

    @contextlib.contextmanager
    def open(self, fresh: bool) -> Iterator["RunFolder"]:
        """Hold the folder against other processes.

        Args:
            fresh: Whether an earlier run's state is removed.

        Raises:
            InputError: If the folder cannot be written, or another process has it.
        """
        with about_output():
            check_writable(self.path)
            held = hold(self.path)
        if held is None:
            raise InputError(
                "Another process is at this run: wait for it, or choose another "
                f"--output or --seed. Received: {str(self.path)!r}"
            )
        try:
            if fresh:
                self._clear()
            yield self
        finally:
            if not any(self.path.glob(f"{CHECKPOINTS}/*")):
                self.remove()  # nothing to go on with
            held.release()
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()

    def write(self, name: str, values: dict[str, Any]) -> None:
        """Write a JSON file of the folder as one step."""
        with new_file(self.path / name) as draft:
            draft.write_text(json.dumps(values, indent=2) + "\n", "utf-8")

    def others(self) -> Iterator[dict[str, Any]]:
        """Yield `recipe.json` of the other unfinished runs beside, with its folder."""
        for path in sorted(self.path.parent.glob(f"{PREFIX}*/recipe.json")):
            if path.parent != self.path:
                with contextlib.suppress(OSError, ValueError, TypeError):
                    yield {
                        **json.loads(path.read_text("utf-8")),
                        "folder": str(path.parent),
                    }

    def remove(self) -> None:
        """Remove everything that the run needed to go on."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _clear(self):
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
