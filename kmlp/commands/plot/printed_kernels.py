"""Which of a network's kernels over positions a plot is about."""

import argparse
import difflib
import fnmatch

from kmlp.analysis.injection import times
from kmlp.console import some
from kmlp.errors import InputError
from kmlp.tables import table

# How alike a name is that is meant instead of an unknown one.
_ALIKE = 0.4


def index(text):
    """An integer from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {text!r}")
    return int(text)


def add_list(command):
    """Adds `--list`."""
    command.add_argument(
        "--list",
        action="store_true",
        help="print the layers that there are, and draw nothing",
    )


def listing(kernels):
    """The layers with their numbers, as text."""
    rows = [
        (number, kernel.name, f"{kernel.depth:g}", times(kernel.grid))
        + (kernel.share_sets, " ".join(map(times, kernel.branches)) or "none")
        for number, kernel in enumerate(kernels, start=1)
    ]
    header = ("number", "layer", "depth", "grid", "share-sets", "local branches")
    return table(header, rows, left=2)


def chosen(kernels, words, flag):
    """The kernels that words name, in the model's order.

    Args:
        kernels: `kmlp.analysis.spatial.SpatialKernel`s.
        words: names, numbers from 1 or patterns such as `stage2_*`; `None`: all.
        flag: whose words they are.

    Raises:
        InputError: a word that names none.
    """
    if words is None:
        return list(kernels)
    found = set()
    for word in words:
        places = _places(kernels, word)
        if not places:
            raise InputError(_unknown(kernels, word, flag))
        found |= places
    return [kernel for place, kernel in enumerate(kernels) if place in found]


def _places(kernels, word):
    if word.isdecimal():
        return {int(word) - 1} & set(range(len(kernels)))
    return {
        place
        for place, kernel in enumerate(kernels)
        if fnmatch.fnmatchcase(kernel.name, word) or kernel.name.startswith(f"{word}/")
    }


def _unknown(kernels, word, flag):
    names = [kernel.name for kernel in kernels]
    near = difflib.get_close_matches(word, names, cutoff=_ALIKE) or names
    return (
        f"{flag} takes a layer's name, a pattern of names or a number from 1 to "
        f"{len(names)}, such as {some(near)}; --list prints all. Received: {word!r}"
    )
