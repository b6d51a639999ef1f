"""Fetch a file over HTTP into its part, on from what has come before."""

import errno
import re
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import requests

from kmlp.console import progress_bar
from kmlp.version import __version__
from kmlp.weights.catalogue import PublishedWeights

PAUSES = (1, 3, 10)  # seconds, before going on where a connection broke off
TIMEOUT = (15, 60)  # seconds, to connect and between bytes
PIECE = 1 << 16


class _BrokenOffError(Exception):
    """Less came than was promised."""


_BREAKS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    _BrokenOffError,
)


def fetch(
    entry: PublishedWeights, part: Any, missing: str, by_hand: str, *, progress: bool
) -> str | None:
    """Complete a part.

    Args:
        entry: Entry of the catalogue.
        part: Part of a download, a `kmlp.weights.downloads.Part`.
        missing: Beginning of a message, which says what is missing.
        by_hand: End of a message, which says how a person gets the file.
        progress: Whether to show it.

    Returns:
        The sha256 that the file must have, or its first digits, or `None`.

    Raises:
        ConnectionError: If there is no network or the server does not give the file.
    """
    if part.origin.get("address") != entry.address:
        part.clear()
    pauses = list(PAUSES)
    answered = False
    while not _is_whole(part):
        try:
            response, continues = _request(entry, part)
            with response:
                _check(response, continues, missing, by_hand)
                if not continues:
                    part.begin(_origin(response, entry))
                if progress and not answered and not sys.stderr.isatty():
                    _say(entry, part)
                answered = True
                _append(response, part, entry, progress)
        except _BREAKS as error:
            if not answered:
                raise ConnectionError(
                    f"{missing}, and its server cannot be reached ({_reason(error)}): "
                    f"{by_hand}. Received: {entry.address}"
                ) from error
            if not pauses:
                raise ConnectionError(
                    f"{missing}, and the connection to its server broke off "
                    f"{len(PAUSES) + 1} times ({_reason(error)}); {_kept(entry, part)}"
                    f". Or else {by_hand}. Received: {entry.address}"
                ) from error
            time.sleep(pauses.pop(0))
        except requests.RequestException as error:
            raise ConnectionError(
                f"{missing}, and fetching it failed ({_reason(error)}): {by_hand}. "
                f"Received: {entry.address}"
            ) from error
    return entry.sha256 or part.origin.get("sha256")


def _is_whole(part):
    return part.size > 0 and part.size == part.origin.get("length")


def _request(entry, part):
    """Return the answer, and whether it goes on from the part or is the whole file."""
    headers = {"Accept-Encoding": "identity", "User-Agent": f"kmlp/{__version__}"}
    if part.size and _can_go_on(entry, part):
        headers["Range"] = f"bytes={part.size}-"
        if validator := part.origin.get("validator"):
            headers["If-Range"] = validator
    response = requests.get(
        entry.address, headers=headers, stream=True, timeout=TIMEOUT
    )
    if "Range" not in headers or response.status_code not in (206, 416):
        return response, False
    if response.status_code == 206 and _continues(response, part):
        return response, True
    response.close()
    part.clear()
    return _request(entry, part)


def _can_go_on(entry, part):
    """Return whether pieces of two versions of the file would be told apart."""
    return bool(entry.sha256 or part.origin.get("validator"))


def _kept(entry, part):
    """Say what stays for the next call."""
    if part.resumable and _can_go_on(entry, part):
        return f"{_size(part.size)} are kept, and the same call goes on from there"
    part.clear()
    return "nothing is kept, since the server cannot go on from there"


def _continues(response, part):
    """Return whether an answer is the rest of the same file."""
    written = response.headers.get("Content-Range", "")
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", written)
    origin = part.origin
    return (
        span is not None
        and [*map(int, span.groups())] == [part.size, origin.get("length")]
        and _validator(response) in (None, origin.get("validator"))
    )


def _check(response, continues, missing, by_hand):
    """Refuse answers that are not the file."""
    received = f"Received: {response.url}"
    if response.status_code != (206 if continues else 200):
        raise ConnectionError(
            f"{missing}, and its server answers {response.status_code} "
            f"{response.reason}: try again later, or {by_hand}. {received}"
        )
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise ConnectionError(
            f"{missing}, and its server answers with a web page instead, as Google "
            "Drive does for a day when too many have fetched a file: try again later, "
            f"or {by_hand}. {received}"
        )


def _origin(response, entry):
    """Describe which file this is."""
    return {
        "address": entry.address,
        "validator": _validator(response),
        "length": _length(response),
        "sha256": _announced_hash(response),
    }


def _append(response, part, entry, progress):
    """Add what comes to the part."""
    origin = part.origin
    length = origin["length"]
    if length is not None and part.room < length - part.size:
        needed, room = _size(length - part.size), _size(part.room)
        raise OSError(errno.ENOSPC, f"{needed} are needed and {room} free")
    bar = progress_bar(
        length,
        "B",
        shown=progress,
        initial=part.size,
        desc=entry.name,
        unit_scale=True,
    )
    with bar, open(part.path, "ab") as file:
        for piece in response.iter_content(PIECE):
            file.write(piece)
            bar.update(len(piece))
    if length is None:
        part.note({**origin, "length": part.size})
    elif part.size < length:
        raise _BrokenOffError(f"{part.size:,} of {length:,} bytes came")


def _length(response):
    """Return the whole file's bytes; `None` where the transfer marks its end."""
    headers = response.headers
    if headers.get("Content-Encoding", "identity") == "identity":
        length = headers.get("Content-Length", "")
        if length.isdecimal():
            return int(length)
    if "chunked" in headers.get("Transfer-Encoding", ""):
        return None
    raise requests.exceptions.InvalidHeader("its server does not tell its length")


def _validator(response):
    """Return what tells this version of the file from others, or `None`."""
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified")


def _announced_hash(response):
    """Return the sha256 that Hugging Face sends before it redirects, or `None`."""
    for answer in (*response.history, response):
        tag = answer.headers.get("X-Linked-ETag", "").strip('"').lower()
        if re.fullmatch(r"[0-9a-f]{64}", tag):
            return tag
    return None


def _say(entry, part):
    """Print one line of what is to come."""
    length = part.origin["length"]
    size = "" if length is None else f", {_size(length - part.size)},"
    host = urlsplit(entry.address).hostname
    print(f"Fetching {entry.name}{size} from {host}", file=sys.stderr, flush=True)


def _size(count):
    return f"{count / 1e6:,.1f} MB"


def _reason(error):
    """Describe the innermost cause in a few words."""
    inner = error
    while True:
        causes = (getattr(inner, "reason", None), *inner.args)
        deeper = [cause for cause in causes if isinstance(cause, BaseException)]
        if not deeper:
            break
        inner = deeper[0]
    # urllib3 begins with the connection object.
    words = re.sub(r"^<?\w+(\.\w+)* ?(\(.*?\)|object at \w+>): ", "", str(inner))
    return words or type(inner).__name__
