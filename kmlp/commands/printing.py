"""A line for each image, and the files that stand beside the lines."""

import json
import sys
from pathlib import Path

from kmlp.data.reading import named
from kmlp.errors import InputError, RunError


def print_all(images, found, in_words, *, finish):
    """Prints a line for each image.

    Args:
        images: their paths.
        found: yields `(image, whether it could be read, what it shows)`.
        in_words: function of what an image shows to its line.
        finish: called when all are through, whatever could not be read.

    Raises:
        InputError: with code 1, images that cannot be read.
    """
    unreadable = []
    width = max(map(len, images))
    for image, readable, shown in found:
        if not readable:
            unreadable.append(image)
            print(f"{named([image])} cannot be read", file=sys.stderr)
            continue
        print(f"{image:<{width}}  {in_words(shown)}", flush=True)
    finish()
    if unreadable:
        raise RunError(
            f"{len(unreadable)} of {len(images)} images cannot be read: replace or "
            f"leave them out. Received: {unreadable[0]!r}",
        )


def write_json(path, content):
    """Writes a file where one was asked for."""
    if path is not None:
        path.write_text(json.dumps(content, indent=1) + "\n")


class Pictures:
    """A folder of PNGs, each named after the image that it belongs to.

    Args:
        folder: made where it is missing; `None`: nothing is written.
        flag: that named it, for messages.

    Raises:
        InputError: no folder, and none can be made.
    """

    def __init__(self, folder, flag):
        self.folder, self._taken = folder, set()
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{flag} takes a folder, which is made where it is missing; this "
                f"cannot be one ({error.strerror}). Received: {str(folder)!r}"
            ) from error

    def save(self, image, draw):
        """Writes `draw()`, a `PIL.Image`, where pictures were asked for."""
        if self.folder is not None:
            draw().save(self.folder / self._name(image))

    def _name(self, image):
        """Images of one name in several folders get numbers."""
        stem, number = Path(image).stem, 1
        name = stem
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return f"{name}.png"
