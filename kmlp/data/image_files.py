"""The image files of a folder, and what else lies there."""

import collections
import dataclasses
import glob
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from kmlp.errors import InputError
from kmlp.typing import PathLike

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp")
# Folders that systems leave beside a person's own: macOS' archives, Synology's disks.
SYSTEM = ("__MACOSX", "@eaDir")


@dataclasses.dataclass(frozen=True)
class Listing:
    """Files that were found.

    Attributes:
        paths: Paths of the images, sorted.
        ignored: Number of other files by reason: a suffix, `"hidden"`, a system's
            folder.
    """

    paths: list[str]
    ignored: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )

    @property
    def said(self) -> str:
        """Return what was ignored, such as `"ignored: 20 .txt, 3 hidden"`, or `""`."""
        return ignored_in_words(self.ignored)

    def say(self, place: object = None, file: TextIO | None = None) -> None:
        """Print what was ignored, if anything was.

        Args:
            place: Name of the data, before the line; `None`: none.
            file: Stream; `None`: standard output.
        """
        if self.ignored:
            before = "" if place is None else f"{place}: "
            print(f"{before}{self.said}", file=file, flush=True)

    def images(self, remedy: str, received: object) -> list[str]:
        """Return the paths of the images.

        Args:
            remedy: Advice where there is none.
            received: What was listed.

        Raises:
            InputError: If there is none.
        """
        if not self.paths:
            others = f"; {self.said}" if self.ignored else ""
            raise InputError(
                f"A folder without images ({', '.join(SUFFIXES)}{others}): {remedy}. "
                f"Received: {str(received)!r}"
            )
        return self.paths


def ignored_in_words(ignored: collections.Counter[str]) -> str:
    """Write numbers of files by reason, the largest first; `""` for none."""
    parts = (f"{count:,} {reason}" for reason, count in ignored.most_common())
    return f"ignored: {', '.join(parts)}" if ignored else ""


def list_images(
    folder: PathLike, suffixes: Collection[str] = SUFFIXES, deep: bool = True
) -> Listing:
    """List the images in a folder, without opening them.

    Args:
        folder: Folder; links to files and folders are followed.
        suffixes: Suffixes of images, lower case; files may have them in any.
        deep: Whether folders within it are searched too.

    Raises:
        OSError: If a folder cannot be read.
    """
    paths, ignored = [], collections.Counter[str]()
    for path, reason in _files(folder, deep):
        suffix = os.path.splitext(path)[1].lower()
        if reason is None and suffix in suffixes:
            paths.append(path)
        else:
            ignored[reason or suffix or "without a suffix"] += 1
    return Listing(sorted(paths), ignored)


def _files(folder, deep) -> Iterator[tuple[str, str | None]]:
    """Yield `(path, why it is passed over)` of all files."""

    def stop(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for home, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        if (real := os.path.realpath(home)) in seen:  # a link to where it lies
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            hidden = "hidden" if name.startswith(".") else None
            yield os.path.join(home, name), hidden
        for name in folders:
            if name.startswith(".") or name in SYSTEM:
                reason = "hidden" if name.startswith(".") else f"in {name}"
                for path, _ in _files(os.path.join(home, name), deep):
                    yield path, reason
        folders[:] = subfolder_names(folders) if deep else []


def subfolder_names(names: Iterable[str]) -> list[str]:
    """Return the names of folders that are a person's own, sorted."""
    return sorted(n for n in names if not (n.startswith(".") or n in SYSTEM))


def images_of(arguments: Iterable[PathLike]) -> Listing:
    """List the image files that files, folders and globs stand for.

    Args:
        arguments: Paths; folders are searched with all that is in them. A file that is
            named is taken whatever its suffix.

    Returns:
        A `Listing`, its paths sorted within a folder or glob.

    Raises:
        InputError: If one stands for nothing.
    """
    found: list[str] = []
    ignored = collections.Counter[str]()
    for argument in map(str, arguments):
        path = Path(argument).expanduser()
        if path.is_dir():
            listing = list_images(path)
            found += listing.images("choose one that has some", argument)
            ignored += listing.ignored
        elif path.exists():
            found.append(str(path))
        else:
            files = sorted(glob.glob(str(path), recursive=True))
            files = [f for f in files if not os.path.isdir(f)]
            if not files:
                raise InputError(
                    "There is no such image, nor do images match it as a pattern. "
                    f"Received: {argument!r}"
                )
            found += files
    return Listing(list(dict.fromkeys(found)), ignored)
