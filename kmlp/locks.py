"""Hold a file or folder against other processes.

The lock of `x` is the file `.x.lock` beside it, which its holder removes. A lock ends
with its process, however that ends; the file that a killed process leaves holds nobody
off.
"""

import contextlib
import errno
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

# Errors by which a file system reports that it has no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}


class Hold:
    """A path that this process holds until `release`.

    Attributes:
        exclusive: Whether others are kept out; false where the file system has no
            locks.
    """

    def __init__(self, lock: FileLock, exclusive: bool) -> None:
        self._lock = lock
        self.exclusive = exclusive

    def release(self) -> None:
        """Let go of the path."""
        # Removed while it is held: who waits for it then takes a new file. On Windows
        # no file is removed that somebody holds.
        if sys.platform == "win32":
            self._lock.release()
        with contextlib.suppress(OSError):
            Path(self._lock.lock_file).unlink()
        self._lock.release()


def hold(path: Path) -> Hold | None:
    """Hold a path, for this process and thread alone.

    Args:
        path: File or folder, there or not, whose folder is made where it is missing.

    Returns:
        The hold, or `None` where another has the path.

    Raises:
        OSError: If the folder of `path` cannot be written.
    """
    try:
        return _held(path, timeout=0)
    except Timeout:
        return None


def hold_in_turn(path: Path, waiting: Callable[[], object]) -> Hold:
    """Hold a path as `hold` does, once those before have let go of it.

    Args:
        path: File or folder, there or not, whose folder is made where it is missing.
        waiting: Function to call before waiting for another.

    Raises:
        OSError: If the folder of `path` cannot be written.
    """
    try:
        return _held(path, timeout=0)
    except Timeout:
        waiting()
        return _held(path, timeout=-1)


def _held(path, timeout):
    file = path.with_name(f".{path.name.lstrip('.')}.lock")
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=timeout)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return Hold(lock, exclusive=False)
    return Hold(lock, exclusive=True)
