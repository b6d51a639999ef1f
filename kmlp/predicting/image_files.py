"""The pictures that a person names."""

import glob
import os
from pathlib import Path

from kmlp.data.sources import SUFFIXES, nested_images
from kmlp.errors import InputError


def images_of(arguments):
    """The image files that arguments stand for: files, folders or globs.

    Args:
        arguments: paths; folders are searched with all that is in them.

    Returns:
        A list of paths, sorted within a folder or glob.

    Raises:
        InputError: one that stands for nothing.
    """
    found = []
    for argument in map(str, arguments):
        path = Path(argument).expanduser()
        if path.is_dir():
            files = nested_images(path)
            if not files:
                raise InputError(
                    f"A folder without images ({', '.join(SUFFIXES)}): choose one that "
                    f"has some. Received: {argument!r}"
                )
        elif path.exists():
            files = [str(path)]
        else:
            files = sorted(glob.glob(str(path), recursive=True))
            files = [f for f in files if not os.path.isdir(f)]
            if not files:
                raise InputError(
                    "There is no such image, nor do images match it as a pattern. "
                    f"Received: {argument!r}"
                )
        found += files
    return list(dict.fromkeys(found))
