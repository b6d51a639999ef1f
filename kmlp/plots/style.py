"""How every plot looks, and how it becomes a file.

Colours are Okabe and Ito's, told apart with any kind of colour vision, and never the
only sign: series differ by marker and line as well, so that a grey print reads too.
Images take scales whose brightness rises steadily.
"""

import functools
import math

from kmlp.atomic import new_file
from kmlp.data.dense.palettes import DISTINCT
from kmlp.errors import InputError

FORMATS = (".png", ".svg", ".pdf")
# By their contrast with white; yellow is left out, lines of it would not be seen.
_ORDER = (6, 5, 2, 4, 0, 1)
COLOURS = (*(tuple(c / 255 for c in DISTINCT[i]) for i in _ORDER), (0.0, 0.0, 0.0))
_MARKERS = "osD^vPX*"
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
# Of images: values from little to much, and values around zero.
SEQUENTIAL, DIVERGING = "cividis", "PuOr"
# What is outlined in an image stands out on either scale.
OUTLINE = COLOURS[1]
DPI = 150
_PARAMETERS = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "image.cmap": SEQUENTIAL,
    "image.interpolation": "nearest",
    "figure.facecolor": "white",
    "figure.titlesize": 11.0,
    # The same figure is the same file.
    "svg.hashsalt": "kmlp",
}


def plot(function):
    """Makes a function of this package draw in the one style.

    Raises:
        ImportError: matplotlib is not installed; the message says what installs it.
    """

    @functools.wraps(function)
    def drawn(*args, **kwargs):
        with check_installed().rc_context(_PARAMETERS):
            return function(*args, **kwargs)

    return drawn


def new_figure(width, height):
    """A `matplotlib.figure.Figure` of inches, whose parts make room for each other.

    It belongs to no window and to no global list: it goes when its owner lets it go.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def series(number):
    """`color`, `marker` and `linestyle` of the series of a number, from 0."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _LINES[number % len(_LINES)],
    }


def grid_shape(count, columns=None):
    """`(rows, columns)` of a nearly square grid for `count` panels."""
    columns = columns or math.ceil(math.sqrt(count))
    columns = min(columns, count)
    return math.ceil(count / columns), columns


def bare(axes):
    """Takes ticks and frame from axes that hold an image; labels stay."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def save(figure, path, dpi=DPI):
    """Writes a figure as one step.

    Args:
        figure: `matplotlib.figure.Figure`.
        path: ends in one of `FORMATS`.
        dpi: dots per inch of a PNG.

    Raises:
        InputError: another ending.
        OSError: the path cannot be written.
    """
    ending = "." + str(path).rpartition(".")[2].lower()
    if ending not in FORMATS:
        raise InputError(
            f"A plot is written as {', '.join(FORMATS)}. Received: {str(path)!r}"
        )
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with check_installed().rc_context(_PARAMETERS), new_file(path) as draft:
        figure.savefig(
            draft, format=ending[1:], dpi=dpi, metadata=dated.get(ending, {})
        )


def check_installed():
    """`matplotlib`.

    Raises:
        ImportError: it is not installed; the message says what installs it.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "Plots are drawn by matplotlib, which is not installed: `python -m pip "
            f"install matplotlib`. Received: {error}"
        ) from error
    return matplotlib
