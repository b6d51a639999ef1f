"""The folder of a run that has not ended."""

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

from kmlp.artifacts.run_curves import UNFINISHED as PREFIX
from kmlp.atomic import check_writable, new_file
from kmlp.errors import InputError

try:
    import fcntl
except ImportError:  # nothing keeps two processes out of one folder
    fcntl = None

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
        except OSError as error:
            raise InputError(f"--output: {error}") from error
        descriptor = self._lock()
        try:
            if fresh:
                self._clear()
            yield self
        finally:
            if not any(self.path.glob(f"{CHECKPOINTS}/*")):
                self.remove()  # nothing to go on with
            if descriptor is not None:
                os.close(descriptor)
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()

    def write(self, name, values):
        """Writes a JSON file of the folder as one step."""
        with new_file(self.path / name) as draft:
            draft.write_text(json.dumps(values, indent=2) + "\n")

    def remove(self):
        """Ends the run's life: everything it needed to go on goes."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _clear(self):
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _lock(self):
        if fcntl is None:
            return None
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(
                "Another process is at this run: wait for it, or choose another "
                f"--output or --seed. Received: {str(self.path)!r}"
            ) from None
        except OSError:
            pass  # a file system without locks
        return descriptor
