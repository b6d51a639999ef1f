"""How every plot looks, and how it becomes a file.

Colours are Okabe and Ito's, told apart with any kind of colour vision, and never the
only sign: series differ by marker and line as well, so that a grey print reads too.
Images take scales whose brightness rises steadily.
"""

import functools
import itertools
import math

from kmlp.atomic import new_file
from kmlp.data.dense.source import DISTINCT
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


# Where a name may stand, in points from its point, the nearest first; right before
# left, above before below.
_OFFSETS = [
    (dx * distance, dy * distance)
    for distance in (1.0, 1.8, 2.8, 4.0)
    for dx, dy in ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
]
_STEP = 6.0
_LINE = 1.15  # of the size of the letters
_AIR = 1.5
_DOT, _SOFT = 2.0, 0.25
_LEADER = 1.5 * _STEP


def name_points(axes, points, *, lines=(), size=7.0, marker=5.0):
    """Writes names beside points of axes, whose scales and limits are final.

    Each name takes the first free place around its point; one that finds none takes
    that which covers least. A name farther away has a thin line to its point.

    Args:
        axes: `matplotlib.axes.Axes` of a figure with a layout.
        points: of `(x, y, name, color)`.
        lines: sequences of `(x, y)`, straight between them, that names keep off where
            there is room.
        size: of the letters, in points.
        marker: width of the points' markers, in points.

    Returns:
        The annotations, in the order of the points.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.textpath import TextPath

    figure = axes.get_figure()
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    spots = [axes.transData.transform((x, y)) * scale for x, y, _, _ in points]
    bounds = axes.get_window_extent()
    inside = tuple(scale * edge for edge in bounds.extents)
    taken = [_box(x, y, marker, marker) for x, y in spots]
    soft = [box for line in lines for box in _along(axes, line, scale)]
    written = []
    for (x, y, name, color), spot in zip(points, spots, strict=True):
        width = TextPath((0, 0), name, size=size).get_extents().width + _AIR
        height = _LINE * size
        own = _box(*spot, marker, marker)
        others = [box for box in taken if box != own]
        places = [
            (_covered(_at(spot, offset, width, height), others, soft, inside), number)
            for number, offset in enumerate(_OFFSETS)
        ]
        dx, dy = _OFFSETS[min(places)[1]]
        taken.append(_at(spot, (dx, dy), width, height))
        far = max(abs(dx), abs(dy)) * _STEP > _LEADER
        written.append(
            axes.annotate(
                name,
                (x, y),
                xytext=(dx * _STEP, dy * _STEP),
                textcoords="offset points",
                ha={1: "left", 0: "center", -1: "right"}[_sign(dx)],
                va={1: "bottom", 0: "center", -1: "top"}[_sign(dy)],
                fontsize=size,
                color=color,
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": color}
                if far
                else None,
                path_effects=[withStroke(linewidth=1.5, foreground="white")],
                # Its place was chosen for this layout.
                in_layout=False,
            )
        )
    return written


def _sign(value):
    return (value > 0) - (value < 0)


def _box(x, y, width, height):
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _at(spot, offset, width, height):
    """The box of a name at an offset, as the alignment places it."""
    dx, dy = offset
    x = spot[0] + dx * _STEP + _sign(dx) * width / 2
    y = spot[1] + dy * _STEP + _sign(dy) * height / 2
    return _box(x, y, width, height)


def _along(axes, line, scale):
    """Small boxes along a line."""
    ends = [[scale * z for z in axes.transData.transform(point)] for point in line]
    for (x, y), (to_x, to_y) in itertools.pairwise(ends):
        count = math.ceil(math.hypot(to_x - x, to_y - y) / _DOT)
        for step in range(count):
            share = step / count
            yield _box(x + share * (to_x - x), y + share * (to_y - y), _DOT, _DOT)


def _covered(box, others, soft, inside):
    """The area of a box that lies on others, or outside; less of it on lines."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    outside = area - _overlap(box, inside)
    lines = sum(_overlap(box, other) for other in soft)
    return sum(_overlap(box, other) for other in others) + outside + _SOFT * lines


def _overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)
