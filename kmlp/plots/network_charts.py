"""Draw what networks reach for what they cost, and how fast they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kmlp.analysis.efficiency import Cost
from kmlp.benchmarking.benchmarked import BACKENDS, WORK
from kmlp.benchmarking.findings import Benchmark, Findings, Speed
from kmlp.benchmarking.measuring import PEAK, quartiles
from kmlp.errors import InputError, check_choice
from kmlp.models.papers import reported
from kmlp.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The name of each cost and its unit.
_COST = {
    "parameters": ("parameters (millions)", 1e6),
    "macs": ("multiply-adds (billions)", 1e9),
    "activations": ("activations (millions)", 1e6),
}
_REACHED = {
    "top1": "top-1 (%)",
    "per_gmac": "top-1 (%) per billion multiply-adds",
    "per_mparam": "top-1 (%) per million parameters",
}
# The longest beginning that a name has decides.
_FAMILIES = {
    "repmlpnet": "RepMLPNet",
    "resmlp": "ResMLP",
    "convmlp": "ConvMLP",
    "msmlp": "MS-MLP",
    "smlpnet": "sMLPNet",
    "mlp_mixer": "MLP-Mixer",
    "swin": "Swin",
    "focal": "Focal",
    "msmlp_swin": "MS-MLP + Swin",
    "msmlp_focal": "MS-MLP + Focal",
}
# Called otherwise in their paper.
_PAPERS = {"smlpnet_t_a2": "T*"}
_OWN = "own runs"
# Costs that differ by more are shown on a logarithmic scale.
_SPREAD = 4
_FEW = 6


@style.plot
def costs(
    rows: Sequence[Cost],
    *,
    runs: Sequence[Cost] = (),
    x: str = "parameters",
    y: str = "top1",
) -> Figure:
    """Draw accuracy against cost, a series for each family.

    Networks whose top-1 is on other data stand in a panel of their own.

    Args:
        rows: Costs of architectures and ablations; those without top-1 are left out.
        runs: Costs of runs, by the names that stand beside them.
        x: Horizontal axis, `"parameters"`, `"macs"` or `"activations"`.
        y: Vertical axis, `"top1"`, `"per_gmac"` or `"per_mparam"`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: If there is no such `x` or `y`, no network with top-1, or one whose
            `x` was not counted.
    """
    check_choice(_COST, x=x)
    check_choice(_REACHED, y=y)
    points = [_point(row, x, y, *_series(row.name)) for row in rows if row.top1]
    points += [_point(row, x, y, _OWN, row.name) for row in runs if row.top1]
    if not points:
        raise InputError(
            "None of the networks has a top-1 to be drawn. Received: "
            f"{[row.name for row in (*rows, *runs)]}"
        )
    order = [*_FAMILIES.values(), _OWN]
    families = sorted(
        dict.fromkeys(p["family"] for p in points),
        key=lambda name: order.index(name) if name in order else len(order),
    )
    looks = {family: _look(n, family) for n, family in enumerate(families)}
    data = dict.fromkeys(p["data"] for p in points)
    panels = [[p for p in points if p["data"] == name] for name in data]
    shares = [1 if len(panel) > _FEW else 0.55 for panel in panels]
    width = 6.5 * sum(shares) + 0.4 * len(panels)
    figure = style.new_figure(width, 4.8 if max(shares) == 1 else 3.6)
    places = figure.subplots(1, len(panels), squeeze=False, width_ratios=shares)[0]
    for axes, panel, name in zip(places, panels, data, strict=True):
        _draw_costs(axes, panel, looks)
        axes.set(title=name, xlabel=_COST[x][0], ylabel=_REACHED[y])
    style.legend_below(figure, looks, max(1, min(len(looks), math.floor(width / 1.5))))
    for axes, panel in zip(places, panels, strict=True):
        names = [
            (p["x"], p["y"], p["label"], looks[p["family"]]["color"]) for p in panel
        ]
        joined = [line for line in axes.lines if line.get_linestyle() != "None"]
        style.name_points(axes, names, lines=[line.get_xydata() for line in joined])
    return figure


def _point(row, x, y, family, label):
    cost = getattr(row, x)
    if cost is None:
        raise InputError(f"`x` was not counted for {row.name}. Received: x={x!r}")
    value = row.top1 if y == "top1" else getattr(row.efficiency, y)
    place = {"x": cost / _COST[x][1], "y": value}
    return {**place, "family": family, "label": label, "data": row.data}


def _series(name):
    """Return the family of a network and its name within the family."""
    table, _, row = name.rpartition("/")
    if table:
        return table, row
    start = max(filter(name.startswith, _FAMILIES), key=len, default=None)
    if start is None:
        return name, name
    rest = name[len(start) :].removesuffix("_cifar").strip("_").upper()
    return _FAMILIES[start], _PAPERS.get(name, rest) or _FAMILIES[start]


def _look(number, family):
    """Return a series' line and marker; markers are open once colours repeat."""
    look = style.series(number) | {"linewidth": 0.8}
    if number >= len(style.COLOURS):
        look["markerfacecolor"] = "white"
    if family not in _FAMILIES.values():
        # Runs, and rows of a table, are no scaling of one another.
        look["linestyle"] = ""
    return look


def _draw_costs(axes, points, looks):
    for family, look in looks.items():
        own = sorted((p["x"], p["y"]) for p in points if p["family"] == family)
        if own:
            axes.plot(*zip(*own), label=family, **look)
    values = [p["x"] for p in points]
    if max(values) > _SPREAD * min(values):
        style.logarithmic(axes, "x", values, 1.25)
    else:
        axes.margins(x=0.18)
    axes.margins(y=0.08)
    axes.grid(True)


_AGAINST = {
    "parameters": "parameters (millions)",
    "macs": "multiply-adds of an image's forward pass (billions)",
    "top1": "top-1 on ImageNet-1k as the papers print it (%)",
    "memory": "peak memory (MB)",
}
_SPEED = "images per second"
_LINK = "0.8"
# Names above the points: degrees, and points of letters, height and distance.
_SLOPE, _LETTERS, _RISE, _APART = 50, 7.0, 8.0, 13.0
_LEADER = {"arrowstyle": "-", "lw": 0.8, "color": _LINK, "shrinkA": 0, "shrinkB": 0}
# Inches: of a panel, of a form's row, of the legend.
_WIDTH, _HEIGHT, _ROW, _LEGEND = 4.8, 3.9, 0.26, 0.3


@style.plot
def throughput(
    results: Iterable[Findings], *, x: str = "parameters", work: str | None = None
) -> Figure:
    """Draw images per second of networks on several backends.

    A panel for each result, kind of work and batch; a series for each backend, with
    XLA and without; medians with bars from quartile to quartile. A thin line holds the
    points of one network together where they stand above one another.

    Args:
        results: What benchmarks of backends found.
        x: Figure that speed is drawn against: `"parameters"` or `"macs"` of the form
            that was timed, `"top1"` as the papers print it, or `"memory"`. Networks
            without such a figure are left out.
        work: Timed work, `"inference"` or `"training"`; `None` for what was timed.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: If there is no such `x`, or nothing of that work has such a figure.
    """
    check_choice(_AGAINST, x=x)
    panels = [
        (found, kind, batch, own)
        for found in results
        for kind in (WORK if work is None else (work,))
        for batch in sorted({speed.batch for speed in found.speeds})
        if (own := _speeds(found, kind, batch, x))
    ]
    if not panels:
        raise InputError(
            f"No network that was timed has both: {work or 'some work'} and "
            f"{_AGAINST[x]}. Received: x={x!r}, work={work!r}"
        )
    timed = {(s.backend, s.xla) for *_, own in panels for _, s in own}
    ways = [(b, xla) for b in BACKENDS for xla in (False, True) if (b, xla) in timed]
    figure, places = _speed_panels(len(panels), _HEIGHT)
    for axes, (found, kind, batch, own) in zip(places, panels):
        _draw_speeds(axes, own, ways)
        device = found.backends[own[0][1].backend]["device"]
        above = _room(own) if _upright(own) else None
        title = f"{kind}, batch {batch}, {found.precision}, {device}"
        axes.set_title(title, pad=above)
        axes.set(xlabel=_AGAINST[x], ylabel=_SPEED)
    _explain_series(figure, places[0], len(ways))
    for axes, (*_, own) in zip(places, panels):
        _name(axes, own)
    return figure


def position(speed: Speed, x: str) -> float | None:
    """Return where a speed stands against `x`; `None` where that is not known."""
    if x == "top1":
        own = reported(speed.network)
        return own.top1 if own and own.data == "ImageNet-1k" else None
    if x == "memory":
        return None if speed.memory is None else speed.memory / 1e6
    return speed.macs / 1e9 if x == "macs" else speed.parameters / 1e6


def _speeds(found, work, batch, x):
    """Return the points `[(x, Speed), …]` to draw."""
    chosen = [s for s in found.speeds if (s.work, s.batch) == (work, batch)]
    points = [(position(speed, x), speed) for speed in chosen]
    return [(at, speed) for at, speed in points if at is not None]


def _speed_panels(count, height):
    columns = count if count < 4 else 2 + (count > 4)
    figure, grid = style.new_panels(count, columns, (_WIDTH, height), (0, _LEGEND))
    return figure, grid.ravel()


def _explain_series(figure, axes, columns):
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _draw_bars(axes, side, number, label, at, speeds, ranges):
    """Draw a series of medians with bars from quartile to quartile along a side."""
    look = style.series(number)
    bars = [
        [speed - low for speed, (low, _) in zip(speeds, ranges)],
        [high - speed for speed, (_, high) in zip(speeds, ranges)],
    ]
    axes.errorbar(
        *((at, speeds) if side == "y" else (speeds, at)),
        **{f"{side}err": bars},
        color=look["color"],
        marker=look["marker"],
        linestyle="",
        capsize=2.5,
        elinewidth=1.0,
        label=label,
    )


def _draw_speeds(axes, points, ways):
    style.logarithmic(axes, "y", [e for _, s in points for e in s.quartiles], 1.5)
    top = axes.get_ylim()[1]
    networks = dict.fromkeys(speed.network for _, speed in points)
    for network in networks if _upright(points) else ():
        own = [_spot(point) for point in points if point[1].network == network]
        lowest, (x, _) = min(y for _, y in own), own[0]
        axes.plot([x, x], [lowest, top], color=_LINK, linewidth=0.8, zorder=1)
    for number, (backend, xla) in enumerate(ways):
        own = [p for p in points if (p[1].backend, p[1].xla) == (backend, xla)]
        places, speeds = [at for at, _ in own], [s.images_per_second for _, s in own]
        label = BACKENDS[backend] + ", XLA" * xla
        ranges = [speed.quartiles for _, speed in own]
        _draw_bars(axes, "y", number, label, places, speeds, ranges)
    axes.margins(x=0.16)
    axes.grid(True)


def _spot(point):
    return point[0], point[1].images_per_second


def _name(axes, points):
    """Name each network above its points, or beside each where they scatter."""
    names = [(*_spot(p), _short(p[1].network), "black") for p in points]
    if not _upright(points):
        spans = [((at, s.quartiles[0]), (at, s.quartiles[1])) for at, s in points]
        style.name_points(axes, names, lines=spans)
        return
    axes.get_figure().draw_without_rendering()  # which settles the axes' places
    places = sorted({(x, name) for x, _, name, _ in names})
    scale = 72 / axes.get_figure().dpi
    spots = [scale * axes.transData.transform((x, 1))[0] for x, _ in places]
    top = axes.get_ylim()[1]
    for (x, name), spot, moved in zip(places, spots, _apart(spots)):
        place = {"xy": (x, top), "xytext": (moved - spot, _RISE), "in_layout": False}
        place["textcoords"] = "offset points"
        axes.annotate("", arrowprops=_LEADER, **place)
        letters = {"rotation": _SLOPE, "rotation_mode": "anchor", "fontsize": _LETTERS}
        axes.annotate(name, **letters, **place)


def _apart(spots):
    """Move ascending places apart, as little as a pass each way makes of it."""
    moved = list(spots)
    for _ in range(50):
        for i in range(1, len(moved)):
            lacking = _APART - (moved[i] - moved[i - 1])
            if lacking > 0:
                moved[i - 1] -= lacking / 2
                moved[i] += lacking / 2
    return moved


def _upright(points):
    """Return whether each network's points stand above one another."""
    places = {(speed.network, at) for at, speed in points}
    return len(places) == len({network for network, _ in places})


def _room(points):
    """Return the height in points that the names above take."""
    longest = max(len(_short(speed.network)) for _, speed in points)
    return _RISE + 6 + 0.6 * _LETTERS * longest * math.sin(math.radians(_SLOPE))


def _short(name):
    """Return a path's last part."""
    return name.rstrip("/").rpartition("/")[2]


@style.plot
def form_speeds(results: Iterable[Benchmark]) -> Figure:
    """Draw images per second of the forms of networks.

    A panel for each network, a row for each form, a series for each batch; medians with
    bars from quartile to quartile.

    Args:
        results: What benchmarks of forms found.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: If nothing was timed.
    """
    timed = [(r, [t for t in r.timings if t.name != PEAK]) for r in results]
    timed = [(result, timings) for result, timings in timed if timings]
    if not timed:
        raise InputError("No form was timed. Received: no timings")
    batches = sorted({t.batch for _, timings in timed for t in timings})
    rows = max(len({t.name for t in timings}) for _, timings in timed)
    height = 1.2 + _ROW * rows * max(1, len(batches) / 2)
    figure, places = _speed_panels(len(timed), height)
    for axes, (result, timings) in zip(places, timed):
        _draw_forms(axes, timings, batches)
        size = "x".join(map(str, result.input_shape[:2]))
        cores = f"{result.threads} thread{'s' * (result.threads > 1)}"
        axes.set_title(f"{_short(result.name)} at {size}, {cores}")
    _explain_series(figure, places[0], len(batches))
    return figure


def _draw_forms(axes, timings, batches):
    names, edges = list(dict.fromkeys(t.name for t in timings)), []
    for number, batch in enumerate(batches):
        own = [t for t in timings if t.batch == batch]
        if not own:
            continue
        ranges = [quartiles(t.rounds or (t.images_per_second,)) for t in own]
        edges += [edge for pair in ranges for edge in pair]
        shift = (number - (len(batches) - 1) / 2) * 0.6 / len(batches)
        places = [names.index(t.name) + shift for t in own]
        speeds = [t.images_per_second for t in own]
        _draw_bars(axes, "x", number, f"batch {batch}", places, speeds, ranges)
    style.logarithmic(axes, "x", edges, 1.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set(xlabel=_SPEED, ylabel="form")
    axes.grid(True, axis="x")
