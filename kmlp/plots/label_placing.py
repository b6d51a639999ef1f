"""Names beside points that cover neither one another nor the points."""

import itertools
import math

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
