"""Give every plot one look, and write it to a file.

Colours are Okabe and Ito's, told apart with any kind of colour vision, and never the
only sign: series differ by marker and line as well, so that a grey print reads too.
Images take scales whose brightness rises steadily.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from kmlp.atomic import new_file
from kmlp.data.dense.source import DISTINCT
from kmlp.errors import InputError
from kmlp.typing import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

FORMATS = (".png", ".svg", ".pdf")
# By their contrast with white; yellow is left out, lines of it would not be seen.
_ORDER = (6, 5, 2, 4, 0, 1)
COLOURS = (*(tuple(c / 255 for c in DISTINCT[i]) for i in _ORDER), (0.0, 0.0, 0.0))
_MARKERS = "osD^vPX*"
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
# Colour maps of images: values from little to much, and values around zero.
SEQUENTIAL, DIVERGING = "cividis", "PuOr"
# This outline stands out from either colour map.
OUTLINE = COLOURS[1]
DPI = 150
_TICKS = [m * 10.0**e for e in range(-4, 8) for m in (1, 2, 5)]
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


def plot(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function of this package draw in the one style.

    Raises:
        ImportError: If matplotlib is not installed; the message says what installs it.
    """

    @functools.wraps(function)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with check_installed().rc_context(_PARAMETERS):
            return function(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of `width` by `height` inches, whose parts make room for another.

    It belongs to no window and to no global list: it goes when its owner lets it go.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_panels(
    count: int,
    columns: int,
    size: tuple[float, float],
    room: tuple[float, float] = (0.0, 0.0),
    **options: Any,
) -> tuple[Figure, np.ndarray]:
    """Return a figure with `count` panels in a grid.

    Args:
        count: Number of panels; the rest of the grid stays empty.
        columns: Panels beside each other, at most.
        size: Width and height of a panel in inches.
        room: What the figure is wider and higher than its panels, in inches.
        **options: Options of `Figure.subplots`.

    Returns:
        The figure and its `(rows, columns)` axes.
    """
    rows, across = grid_shape(count, columns)
    figure = new_figure(size[0] * across + room[0], size[1] * rows + room[1])
    panels = figure.subplots(rows, across, squeeze=False, **options)
    for spare in panels.flat[count:]:
        spare.remove()
    return figure, panels


def series(number: int) -> dict[str, Any]:
    """Return `color`, `marker` and `linestyle` of a series by its number from 0."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _LINES[number % len(_LINES)],
    }


def grid_shape(count: int, columns: int) -> tuple[int, int]:
    """Return rows and columns of a grid for `count` panels."""
    columns = min(columns, count)
    return math.ceil(count / columns), columns


def bare(axes: Axes) -> None:
    """Take ticks and frame from axes that hold an image; labels stay."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def logarithmic(axes: Axes, side: str, values: Iterable[float], air: float) -> None:
    """Scale a side logarithmically, with ticks that read as numbers.

    Args:
        axes: Axes of a panel.
        side: Axis, `"x"` or `"y"`.
        values: Values that the side holds.
        air: Factor of the room beyond the least and the greatest.
    """
    values = list(values)
    low, high = min(values) / air, max(values) * air
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    if len(ticks) > 9:
        ticks = [tick for tick in ticks if f"{tick:.0e}"[0] == "1"]
    axes.set(**{f"{side}scale": "log"})
    axes.set(**{f"{side}lim": (low, high), f"{side}ticks": ticks})
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_ticks([], minor=True)
    axis.set_major_formatter(lambda value, _: f"{value:,g}")


def legend_below(
    figure: Figure, looks: Mapping[str, Mapping[str, Any]], columns: int
) -> None:
    """Explain series below the panels.

    Args:
        figure: Figure of the panels.
        looks: Options of a line by the series' label.
        columns: Entries beside each other.
    """
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=label, **look) for label, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def save(figure: Figure, path: PathLike, dpi: int = DPI) -> None:
    """Write a figure as one step.

    Args:
        figure: Figure to write.
        path: File that ends in one of `FORMATS`.
        dpi: Dots per inch of a PNG.

    Raises:
        InputError: If `path` has another ending.
        OSError: If `path` cannot be written.
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


def check_installed() -> ModuleType:
    """Return `matplotlib`.

    Raises:
        ImportError: If it is not installed; the message says what installs it.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "Plots are drawn by matplotlib, which is not installed: `python -m pip "
            f"install matplotlib`. Received: {error}"
        ) from error
    return matplotlib


# Where a name may stand, in points from its point, the nearest first; right before
# left, above before below.
_SIDES = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
_OFFSETS = 6.0 * np.array(
    [np.multiply(d, side) for d in (1, 1.8, 2.8, 4) for side in _SIDES]
)
# Points: of the letters, of the points' markers, of names with a line to their point.
_SIZE, _MARKER, _LEADER = 7.0, 5.0, 9.0
_LINE = 1.15  # of the size of the letters
_AIR = 1.5
_DOT, _SOFT = 2.0, 0.25


def name_points(
    axes: Axes,
    points: Sequence[tuple[float, float, str, Any]],
    *,
    lines: Iterable[Any] = (),
) -> list[Any]:
    """Write names beside points of axes, whose scales and limits are final.

    Each name takes the first free place around its point; one that finds none takes
    that which covers least. A name farther away has a thin line to its point.

    Args:
        axes: Axes of a figure with a layout.
        points: Points, each `(x, y, name, color)`.
        lines: Sequences of `(x, y)`, straight between them, that names keep off where
            there is room.

    Returns:
        The annotations, in the order of the points.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.textpath import TextPath

    figure: Any = axes.get_figure()
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    spots = scale * axes.transData.transform([point[:2] for point in points])
    inside = scale * np.array([axes.get_window_extent().extents])
    own = taken = _boxes(spots, np.full(2, _MARKER))
    dots = [np.empty((0, 2))]
    for line in lines:
        for a, b in itertools.pairwise(scale * axes.transData.transform(line)):
            count = math.ceil(np.hypot(*(b - a)) / _DOT)
            dots.append(np.linspace(a, b, count, endpoint=False))
    soft = _boxes(np.concatenate(dots), np.full(2, _DOT))
    written = []
    for (x, y, name, color), spot, marker in zip(points, spots, own, strict=True):
        width = TextPath((0, 0), name, size=_SIZE).get_extents().width + _AIR
        size, signs = np.array((width, _LINE * _SIZE)), np.sign(_OFFSETS)
        boxes = _boxes(spot + _OFFSETS + signs * size / 2, size)
        others = taken[(taken != marker).any(axis=1)]
        outside = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - _shared(boxes, inside)
        covered = _shared(boxes, others) + outside + _SOFT * _shared(boxes, soft)
        best = covered.argmin()  # the nearest of equal ones
        taken = np.concatenate([taken, boxes[best, None]])
        dx, dy = signs[best].astype(int)
        far = np.abs(_OFFSETS[best]).max() > _LEADER
        leader = {"arrowstyle": "-", "lw": 0.5, "color": color}
        written.append(
            axes.annotate(
                name,
                (x, y),
                xytext=tuple(_OFFSETS[best]),
                textcoords="offset points",
                ha=("center", "left", "right")[dx],
                va=("center", "bottom", "top")[dy],
                fontsize=_SIZE,
                color=color,
                arrowprops=leader if far else None,
                path_effects=[withStroke(linewidth=1.5, foreground="white")],
                # Its place was chosen for this layout.
                in_layout=False,
            )
        )
    return written


def _boxes(centres, size):
    """Return the corners `(n, 4)` of boxes of one size around places."""
    return np.hstack([centres - size / 2, centres + size / 2])


def _shared(boxes, others):
    """Return the area of each box that lies on others."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    return np.prod(np.maximum(high - low, 0), axis=-1).sum(1)
