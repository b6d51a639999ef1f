"""The state of a run on disk: written whole or not at all, read only where sound.

A checkpoint is one `.npz` file, whose zip format carries a checksum for every array;
a file that was cut short or altered is told from a sound one when it is read.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

from kmlp.artifacts.run_curves import UNFINISHED as PREFIX
from kmlp.atomic import check_writable, new_file
from kmlp.errors import InputError, RunError
from kmlp.locks import hold

KEPT = 3
_PROGRESS = "progress"
_DAMAGES = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` steps.

    Attributes:
        step: optimizer steps done.
        arrays: `{name: array}`, all of the engine's state.
        progress: what the loop knows besides, as JSON has it.
    """

    step: int
    arrays: dict
    progress: dict


class Checkpoints:
    """The newest checkpoints of a run.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def save(self, checkpoint):
        """Writes a checkpoint; older ones beyond `KEPT` go.

        Raises:
            RunError: it cannot be written; those before it are untouched.
        """
        path = self.folder / f"step-{checkpoint.step:010d}.npz"
        draft = path.with_suffix(".unfinished")
        text = json.dumps(checkpoint.progress).encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(draft, "wb") as file:
                progress = np.frombuffer(text, np.uint8)
                np.savez(file, **checkpoint.arrays, **{_PROGRESS: progress})
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
                f"Received: {str(self.folder)!r}",
            ) from error
        for old in self._newest()[:-KEPT]:
            old.unlink(missing_ok=True)

    def latest(self):
        """The newest sound checkpoint, or `None` where there is none at all.

        A damaged one is reported, set aside as `.damaged`, and the one before used.

        Raises:
            RunError: there are checkpoints, and all are damaged.
        """
        for leftover in self.folder.glob("*.unfinished"):
            leftover.unlink(missing_ok=True)
        paths = self._newest()
        for path in reversed(paths):
            try:
                return _read(path)
            except _DAMAGES as error:
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
                f"pass --fresh to begin anew. Received: {str(self.folder)!r}",
            )
        return None

    def _newest(self):
        """Paths from the oldest to the newest."""
        return sorted(self.folder.glob("step-*.npz"))


def _read(path):
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    progress = json.loads(arrays.pop(_PROGRESS).tobytes())
    return Checkpoint(int(path.stem.removeprefix("step-")), arrays, progress)


def _sync(folder):
    """Makes a rename last through a loss of power, where the system can."""
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
    """Where a run keeps what it needs to go on, until it is published.

    The folder's name follows from everything that decides the result, so that the
    same command finds its own run again and another command never does.

    Args:
        parent: the folder of the architecture's versions.
        identity: what decides the result, as JSON has it.

    Attributes:
        path: of the folder.
    """

    def __init__(self, parent, identity):
        text = json.dumps(identity, sort_keys=True)
        mark = hashlib.sha256(text.encode()).hexdigest()[:8]
        self.path = Path(parent) / f"{PREFIX}{mark}"

    @contextlib.contextmanager
    def open(self, fresh):
        """Holds the folder against other processes.

        Args:
            fresh: whether an earlier run's state is removed.

        Raises:
            InputError: the folder cannot be written, or another process has it.
        """
        try:
            check_writable(self.path)
            held = hold(self.path)
        except OSError as error:
            raise InputError(f"--output: {error}") from error
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

    def write(self, name, values):
        """Writes a JSON file of the folder as one step."""
        with new_file(self.path / name) as draft:
            draft.write_text(json.dumps(values, indent=2) + "\n")

    def others(self):
        """Yield `recipe.json` of the other unfinished runs beside, with its folder."""
        for path in sorted(self.path.parent.glob(f"{PREFIX}*/recipe.json")):
            if path.parent != self.path:
                with contextlib.suppress(OSError, ValueError):
                    yield {**json.loads(path.read_text()), "folder": str(path.parent)}

    def remove(self):
        """Ends the run's life: everything it needed to go on goes."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _clear(self):
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
