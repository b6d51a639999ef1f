"""How fast networks are, against what they cost or reach."""

import math

from kmlp.benchmarking.benchmarked import BACKENDS, WORK
from kmlp.benchmarking.measuring import PEAK, quartiles
from kmlp.errors import InputError
from kmlp.models.papers import reported
from kmlp.plots import style
from kmlp.plots.style import name_points

X = {
    "parameters": "parameters (millions)",
    "macs": "multiply-adds of an image's forward pass (billions)",
    "top1": "top-1 on ImageNet-1k as the papers print it (%)",
    "memory": "peak memory (MB)",
}
SPEED = "images per second"
_LINK = "0.8"
_TICKS = [m * 10.0**e for e in range(-3, 8) for m in (1, 2, 5)]
# Names above the points: degrees, and points of letters, height and distance.
_SLOPE, _LETTERS, _RISE, _APART = 50, 7.0, 8.0, 13.0
_LEADER = {"arrowstyle": "-", "lw": 0.8, "color": _LINK, "shrinkA": 0, "shrinkB": 0}
# One panel's inches.
WIDTH, _HEIGHT = 4.8, 3.9


@style.plot
def throughput(results, *, x="parameters", work=None):
    """Images per second of networks on several backends, against a figure of theirs.

    A panel for each result, kind of work and batch; a series for each backend, with
    XLA and without; medians with bars from quartile to quartile. A thin line holds the
    points of one network together where they stand above one another.

    Args:
        results: `kmlp.benchmarking.findings.Findings`.
        x: `"parameters"` or `"macs"` of the form that was timed, `"top1"` as the papers
            print it, or `"memory"`. Networks without such a figure are left out.
        work: `"inference"` or `"training"`; `None`: what was timed.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: another `x`, or nothing of that work has such a figure.
    """
    if x not in X:
        raise InputError(f"`x` is one of {', '.join(X)}. Received: x={x!r}")
    panels = [
        (found, kind, batch, own)
        for found in results
        for kind in (WORK if work is None else (work,))
        for batch in sorted({speed.batch for speed in found.speeds})
        if (own := _points(found, kind, batch, x))
    ]
    if not panels:
        raise InputError(
            f"No network that was timed has both: {work or 'some work'} and {X[x]}. "
            f"Received: x={x!r}, work={work!r}"
        )
    ways = {way for *_, own in panels for way in _ways(own)}
    known = [(b, w) for b in BACKENDS for w in (False, True) if (b, w) in ways]
    rows, columns = panel_grid(len(panels))
    figure = style.new_figure(WIDTH * columns, _HEIGHT * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (found, kind, batch, own) in zip(grid, panels):
        _draw(axes, own, known)
        device = found.backends[own[0][1].backend]["device"]
        above = _room(own) if _upright(own) else None
        title = f"{kind}, batch {batch}, {found.precision}, {device}"
        axes.set_title(title, pad=above)
        axes.set(xlabel=X[x], ylabel=SPEED)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(known))
    for axes, (*_, own) in zip(grid, panels):
        _name(axes, own)
    return figure


def position(speed, x):
    """Where a speed stands on the axis of `X`; `None` where that is not known."""
    if x == "top1":
        own = reported(speed.network)
        known = own is not None and own.data == "ImageNet-1k"
        return own.top1 if known else None
    if x == "memory":
        return None if speed.memory is None else speed.memory / 1e6
    return speed.macs / 1e9 if x == "macs" else speed.parameters / 1e6


def _points(found, work, batch, x):
    """`[(x, Speed), …]`."""
    chosen = [s for s in found.speeds if (s.work, s.batch) == (work, batch)]
    points = [(position(speed, x), speed) for speed in chosen]
    return [(at, speed) for at, speed in points if at is not None]


def _ways(points):
    return {(speed.backend, speed.xla) for _, speed in points}


def _draw(axes, points, ways):
    logarithmic(axes, "y", [e for _, s in points for e in s.quartiles])
    top = axes.get_ylim()[1]
    networks = dict.fromkeys(speed.network for _, speed in points)
    for network in networks if _upright(points) else ():
        own = [_spot(point) for point in points if point[1].network == network]
        lowest, (x, _) = min(y for _, y in own), own[0]
        axes.plot([x, x], [lowest, top], color=_LINK, linewidth=0.8, zorder=1)
    for number, (backend, xla) in enumerate(ways):
        own = [p for p in points if (p[1].backend, p[1].xla) == (backend, xla)]
        look = style.series(number)
        bars = [[], []]
        for _, speed in own:
            low, high = speed.quartiles
            bars[0].append(speed.images_per_second - low)
            bars[1].append(high - speed.images_per_second)
        axes.errorbar(
            [at for at, _ in own],
            [speed.images_per_second for _, speed in own],
            bars,
            color=look["color"],
            marker=look["marker"],
            linestyle="",
            capsize=2.5,
            elinewidth=1.0,
            label=BACKENDS[backend] + ", XLA" * xla,
        )
    axes.margins(x=0.16)
    axes.grid(True)


def _spot(point):
    return point[0], point[1].images_per_second


def logarithmic(axes, side, values):
    """A logarithmic side around values, with ticks that read as numbers."""
    low, high = min(values) / 1.5, max(values) * 1.5
    getattr(axes, f"set_{side}scale")("log")
    getattr(axes, f"set_{side}lim")(low, high)
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    if len(ticks) > 9:
        ticks = [tick for tick in ticks if f"{tick:.0e}"[0] == "1"]
    getattr(axes, f"set_{side}ticks")(ticks)
    getattr(axes, f"set_{side}ticks")([], minor=True)
    getattr(axes, f"{side}axis").set_major_formatter(lambda value, _: f"{value:,g}")


def _name(axes, points):
    """Each network's name: above its points, or beside each where they scatter."""
    names = [(*_spot(p), short_name(p[1].network), "black") for p in points]
    if not _upright(points):
        spans = [((at, s.quartiles[0]), (at, s.quartiles[1])) for at, s in points]
        name_points(axes, names, lines=spans)
        return
    axes.get_figure().draw_without_rendering()  # which settles the axes' places
    places = sorted({(x, name) for x, _, name, _ in names})
    scale = 72 / axes.get_figure().dpi
    spots = [scale * axes.transData.transform((x, 1))[0] for x, _ in places]
    top = axes.get_ylim()[1]
    for (x, name), spot, moved in zip(places, spots, _apart(spots)):
        offset = {"xy": (x, top), "textcoords": "offset points", "in_layout": False}
        axes.annotate("", xytext=(moved - spot, _RISE), arrowprops=_LEADER, **offset)
        axes.annotate(
            name,
            xytext=(moved - spot, _RISE),
            rotation=_SLOPE,
            rotation_mode="anchor",
            fontsize=_LETTERS,
            **offset,
        )


def _apart(spots):
    """Ascending places moved apart, as little as a pass each way makes of it."""
    moved = list(spots)
    for _ in range(50):
        for i in range(1, len(moved)):
            lacking = _APART - (moved[i] - moved[i - 1])
            if lacking > 0:
                moved[i - 1] -= lacking / 2
                moved[i] += lacking / 2
    return moved


def _upright(points):
    """Whether each network's points stand above one another."""
    places = {(speed.network, at) for at, speed in points}
    return len(places) == len({network for network, _ in places})


def panel_grid(count):
    """`(rows, columns)` of panels that leave little empty."""
    return style.grid_shape(count, count if count < 4 else 2 + (count > 4))


def _room(points):
    """Points of height that the names above take."""
    longest = max(len(short_name(speed.network)) for _, speed in points)
    return _RISE + 6 + 0.6 * _LETTERS * longest * math.sin(math.radians(_SLOPE))


def short_name(name):
    """A path's last part."""
    return name.rstrip("/").rpartition("/")[2]


_ROW = 0.26  # inches of a form


@style.plot
def form_speeds(results):
    """Images per second of the forms of networks.

    A panel for each network, a row for each form, a series for each batch; medians with
    bars from quartile to quartile.

    Args:
        results: `kmlp.benchmarking.findings.Benchmark`s.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: nothing was timed.
    """
    results = [r for r in results if any(t.name != PEAK for t in r.timings)]
    if not results:
        raise InputError("No form was timed. Received: no timings")
    counts = [len(_forms(result)) for result in results]
    rows, columns = panel_grid(len(results))
    batches = sorted({t.batch for r in results for t in r.timings if t.name != PEAK})
    height = rows * (1.2 + _ROW * max(counts) * max(1, len(batches) / 2))
    figure = style.new_figure(WIDTH * columns, height + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, result in zip(grid, results):
        _draw_forms(axes, result, batches)
    for axes in grid[len(results) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(batches))
    return figure


def _forms(result):
    return list(dict.fromkeys(t.name for t in result.timings if t.name != PEAK))


def _draw_forms(axes, result, batches):
    names, edges = _forms(result), []
    for number, batch in enumerate(batches):
        own = [t for t in result.timings if t.name != PEAK and t.batch == batch]
        if not own:
            continue
        ranges = [quartiles(t.rounds or (t.images_per_second,)) for t in own]
        edges += [edge for pair in ranges for edge in pair]
        shift = (number - (len(batches) - 1) / 2) * 0.6 / max(len(batches), 1)
        look = style.series(number)
        axes.errorbar(
            [t.images_per_second for t in own],
            [names.index(t.name) + shift for t in own],
            xerr=[
                [t.images_per_second - low for t, (low, _) in zip(own, ranges)],
                [high - t.images_per_second for t, (_, high) in zip(own, ranges)],
            ],
            color=look["color"],
            marker=look["marker"],
            linestyle="",
            capsize=2.5,
            elinewidth=1.0,
            label=f"batch {batch}",
        )
    logarithmic(axes, "x", edges)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    size = "x".join(map(str, result.input_shape[:2]))
    cores = f"{result.threads} thread{'s' * (result.threads > 1)}"
    axes.set_title(f"{short_name(result.name)} at {size}, {cores}")
    axes.set(xlabel=SPEED, ylabel="form")
    axes.grid(True, axis="x")
