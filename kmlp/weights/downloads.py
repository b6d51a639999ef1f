"""Published checkpoints brought to this machine, and kept in Keras' cache."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from kmlp.errors import InputError
from kmlp.locks import hold_in_turn
from kmlp.weights.catalogue import PublishedWeights


class Part:
    """The part of a file that has arrived, and which file it belongs to.

    Attributes:
        path: Path of the bytes, in the order of the file.
        resumable: Whether they outlast this process.
        whole: Whether the file has become what it is a part of.
    """

    def __init__(self, path: Path, resumable: bool = True) -> None:
        self.path = path
        self.resumable = resumable
        self.whole = False
        # Beside the bytes, since they become the file without being copied.
        name = f"{path.name.removesuffix('.part')}.origin.part"
        self._origin_path = path.with_name(name)

    @property
    def size(self) -> int:
        """Return the number of bytes that have come."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def origin(self) -> dict[str, Any]:
        """Return the entries that `begin` was told, `{}` where nothing is known."""
        try:
            origin = json.loads(self._origin_path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return origin if isinstance(origin, dict) else {}

    @property
    def room(self) -> int:
        """Return the bytes that the disk still has room for."""
        return shutil.disk_usage(self.path.parent).free

    def begin(self, origin: dict[str, Any]) -> None:
        """Drop what has come; from now on it is bytes of `origin`, a dict."""
        self.clear()
        self.note(origin)

    def note(self, origin: dict[str, Any]) -> None:
        """Replace what `origin` says."""
        self._origin_path.write_text(json.dumps(origin), "utf-8")

    def clear(self) -> None:
        """Drop what has come."""
        self._origin_path.unlink(missing_ok=True)
        os.truncate(self.path, 0)

    def become(self, target: Path) -> None:
        """Put the whole file in its place, in one step."""
        with open(self.path, "r+b") as file:  # Windows writes out no other
            os.fsync(file.fileno())
        self._origin_path.unlink(missing_ok=True)
        os.replace(self.path, target)
        self.whole = True

    def remove(self) -> None:
        """Leave nothing behind."""
        self._origin_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def part_of(
    target: Path, waiting: Callable[[], object] = lambda: None
) -> Iterator[Part]:
    """Hold the part of a file, for this process and thread alone.

    Args:
        target: Path that the whole file will have; its folder is made.
        waiting: Function that is called before waiting for another process to end.

    Yields:
        A `Part`, which stays where the block is left with some bytes in it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    held = hold_in_turn(target, waiting)
    # Without locks every process fetches for itself.
    mark = "" if held.exclusive else f".{uuid.uuid4().hex}"
    part = Part(target.with_name(f"{target.name}{mark}.part"), held.exclusive)
    try:
        part.path.touch()
        yield part
    finally:
        if not (part.whole or (part.resumable and part.size)):
            part.remove()
        held.release()


def download(entry: PublishedWeights, *, progress: bool = True) -> Path:
    """Return the path of a published checkpoint in Keras' cache, fetched if missing.

    What an interruption leaves is kept beside it, and the next call goes on from
    there. Proxies are taken from the environment. Weights that come with the package
    are taken from it.

    Args:
        entry: Entry of the catalogue.
        progress: Whether a bar shows on a terminal, one line elsewhere.

    Raises:
        ConnectionError: If there is no network or the server does not give it; the
            message says what to fetch by hand and where to put it.
        InputError: If what came is not what was published.
        OSError: If the cache cannot be written to or is full.
    """
    path = cache_path(entry)
    if entry.packaged:
        if (wrong := _fault(path, entry.sha256)) is not None:
            raise InputError(
                f"A file that comes with kmlp {wrong}: install the package again. "
                f"Received: {str(path)!r}"
            )
        return path
    try:
        if _fault(path, entry.sha256) is not None:
            _bring(entry, path, progress)
    except OSError as error:
        if error.errno is None:  # has its message
            raise
        raise type(error)(
            f"Keras' cache cannot be used ({error.strerror}): make room or mend it, or "
            "choose another folder by the environment variable KERAS_HOME. "
            f"Received: {str(path)!r}"
        ) from error
    return path


def cache_path(entry: PublishedWeights) -> Path:
    """Return where a checkpoint lies once it is fetched, or put there by hand."""
    if entry.packaged:
        return Path(__file__).with_name(entry.packaged)
    # Keras has no public name for its folder.
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    suffix = PurePosixPath(urlsplit(entry.address).path).suffix or ".pth"
    return Path(home).expanduser() / "models" / "kmlp" / f"{entry.name}{suffix}"


def sha256_of(path: Path) -> str:
    """Return the hash of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bring(entry, path, progress):
    """Put the checkpoint in its place; alone, where several want to."""
    # Imported here: most calls find the file in its place.
    from kmlp.weights.http_transfer import fetch

    def waiting() -> None:
        if progress:
            line = f"Another process is fetching {entry.name}; waiting for it."
            print(line, file=sys.stderr, flush=True)

    by_hand = (
        f"fetch {entry.page or entry.address} by hand and put it at {path}, where it "
        "is used without a network"
    )
    with part_of(path, waiting) as part:
        fault = _fault(path, entry.sha256)
        if fault is None:  # another process has brought it
            return
        sha256 = fetch(entry, part, f"{path} {fault}", by_hand, progress=progress)
        wrong = _fault(part.path, sha256)
        if wrong is not None:
            part.remove()
            raise InputError(
                f"What was fetched as {entry.name} {wrong}; it was removed. Try "
                f"again, or {by_hand}. Received: {entry.address}"
            )
        part.become(path)


def _fault(path, sha256):
    """Say what is wrong with a file, as a predicate; `None` if nothing is.

    Args:
        path: Path of the file.
        sha256: Hash of the file, or its first digits, or `None`.
    """
    if not path.exists():
        return "is not there"
    with open(path, "rb") as file:
        beginning = file.read(512).lstrip().lower()
        if not beginning:
            return "is empty"
        if beginning.startswith((b"<!doctype", b"<html")):
            return "is a web page, not a checkpoint"
    if sha256 is None or (found := sha256_of(path)).startswith(sha256.lower()):
        return None
    return f"has sha256 {found}, not {sha256}{'…' * (len(sha256) < 64)}"
