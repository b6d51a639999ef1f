"""Published checkpoints on this machine, fetched once into Keras' cache."""

import hashlib
import os
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from kmlp.errors import InputError
from kmlp.weights.downloads.partial import part_of


def download(entry, *, progress=True) -> Path:
    """A published checkpoint as a file, fetched where it is not there yet.

    What an interruption leaves is kept beside it, and the next call goes on from
    there. Proxies are taken from the environment.

    Args:
        entry: `PublishedWeights`.
        progress: whether a bar shows on a terminal, one line elsewhere.

    Returns:
        Its path in Keras' cache, `cache_path(entry)`.

    Raises:
        ConnectionError: no network, or the server does not give it; the message says
            what to fetch by hand and where to put it.
        InputError: what came is not what was published.
        OSError: the cache cannot be written to, or is full.
    """
    path = cache_path(entry)
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


def cache_path(entry) -> Path:
    """Where a checkpoint lies once it is fetched, or put there by hand."""
    # Keras has no public name for its folder.
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    suffix = PurePosixPath(urlsplit(entry.address).path).suffix or ".pth"
    return Path(home).expanduser() / "models" / "kmlp" / f"{entry.name}{suffix}"


def _bring(entry, path, progress):
    """Puts the checkpoint in its place; alone, where several want to."""
    # Imported here: most calls find the file in its place.
    from kmlp.weights.downloads.http_transfer import fetch

    def waiting():
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
    """What is wrong with a file, as a predicate; `None` where nothing is.

    Args:
        path: of the file.
        sha256: its hash, or how it begins, or `None`.
    """
    if not path.exists():
        return "is not there"
    with open(path, "rb") as file:
        beginning = file.read(512).lstrip().lower()
        if not beginning:
            return "is empty"
        if beginning.startswith((b"<!doctype", b"<html")):
            return "is a web page, not a checkpoint"
        if sha256 is None:
            return None
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found.startswith(sha256.lower()):
        return None
    return f"has sha256 {found}, not {sha256}{'…' * (len(sha256) < 64)}"
