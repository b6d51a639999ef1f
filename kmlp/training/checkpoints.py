"""The state of a run on disk: written whole or not at all, read only where sound.

A checkpoint is one `.npz` file, whose zip format carries a checksum for every array;
a file that was cut short or altered is told from a sound one when it is read.
"""

import dataclasses
import json
import os
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

from kmlp.errors import RunError

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
