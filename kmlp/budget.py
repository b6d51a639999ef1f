"""Compare what a file declares with what it holds, before anything is allocated.

A few bytes can declare gigabytes: compressed zeros, strides of zero, chunks that were
never written, a network of a million layers. Every reader of a file that somebody else
may have written asks this module first.
"""

import contextlib
import copy
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kmlp.errors import InputError
from kmlp.typing import PathLike

# What every file may declare, and what a larger one may per byte that it holds. Sparse
# weights of few values, compressed, come to about 20.
FLOOR, RATIO = 64 << 20, 32
# What every network may make of one batch, whatever its file holds.
ACTIVATIONS = 768 << 20
# Objects that Python keeps cost more than their bytes in a file.
ITEM = 8 << 10
MOST_JSON = 8 << 20
_CHUNK = 1 << 20


class Budget:
    """The bytes that reading one file may take.

    Args:
        path: Path of the file or folder, which messages name.
        floor: Bytes that it may declare in any case.
    """

    def __init__(self, path: PathLike, floor: int = FLOOR) -> None:
        self.path = Path(path)
        self.held = size_of(self.path)
        self.allowed = max(floor, RATIO * self.held)
        self._declared = 0

    def take(self, declared: int, what: str) -> None:
        """Count bytes that are about to be allocated.

        Args:
            declared: Number of bytes.
            what: Name of what declares them.

        Raises:
            InputError: If all that was declared is more than the file may.
        """
        self._declared += declared
        if self._declared > self.allowed:
            raise InputError(
                f"This file declares {in_words(self._declared)} (with "
                f"{what[:200]}) and holds {in_words(self.held)}; it may declare "
                f"{in_words(self.allowed)}: do not trust it, or, if it is your own, "
                f"save it again uncompressed. Received: {str(self.path)!r}"
            )


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def in_words(size: int) -> str:
    """Return a number of bytes with its unit."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if size >= factor:
            return f"{size // (factor // 10) / 10:,} {unit}"
    return f"{size} bytes"


@contextlib.contextmanager
def archive(path: PathLike, *, whole: bool = False) -> Iterator[zipfile.ZipFile]:
    """Open a zip file whose members declare no more than it may.

    Args:
        path: Path of the file.
        whole: Whether compressed members are checked to hold what they declare, for
            readers that inflate whatever there is.

    Raises:
        InputError: If they declare more.
        Exception: Of many kinds, if it is damaged.
    """
    budget = Budget(path)
    with zipfile.ZipFile(path) as opened:
        for member in opened.infolist():
            name = f"the member {member.filename!r}"
            budget.take(member.file_size, name)
            if member.compress_type == zipfile.ZIP_STORED:
                sound = member.compress_size == member.file_size
            elif member.compress_type == zipfile.ZIP_DEFLATED:
                sound = not whole or _inflates(opened, member)
            else:  # inflates without a limit
                raise ValueError(f"{name} is compressed as no checkpoint is")
            if not sound:
                raise ValueError(f"{name} does not have the size that it declares")
        yield opened


def _inflates(opened, member):
    """Return whether a compressed member has the size that it declares."""
    declared, member = member.file_size, copy.copy(member)
    member.file_size += 1  # by which a longer one is told
    with opened.open(member) as file:
        return sum(map(len, iter(lambda: file.read(_CHUNK), b""))) == declared


def read_member(opened: zipfile.ZipFile, name: str) -> bytes:
    """Return a member of an archive, no more of it than it declares."""
    member = opened.getinfo(name)
    with opened.open(member) as file:
        return file.read(member.file_size)


def parse_json(text: bytes | str) -> dict[str, Any]:
    """Return the dictionary that JSON holds, as it comes with an artifact.

    Raises:
        ValueError: If it is none, too long or nested too deeply.
    """
    if len(text) > MOST_JSON:
        raise ValueError(f"{in_words(len(text))} of JSON, of at most 8 MB")
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"JSON of a {type(found).__name__}, not of a dictionary")
    return found
