"""What networks reach for what they cost."""

import math

from kmlp.errors import InputError
from kmlp.plots import style
from kmlp.plots.style import name_points

# How a cost is called, and what it is counted in.
X = {
    "parameters": ("parameters (millions)", 1e6),
    "macs": ("multiply-adds (billions)", 1e9),
    "activations": ("activations (millions)", 1e6),
}
Y = {
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
_TICKS = [m * 10.0**e for e in range(-4, 6) for m in (1, 2, 5)]


@style.plot
def costs(rows, *, runs=(), x="parameters", y="top1"):
    """Accuracy against cost, a series for each family.

    Networks whose top-1 is on other data stand in a panel of their own.

    Args:
        rows: `kmlp.analysis.efficiency.Cost`s of architectures and ablations; those
            without top-1 are left out.
        runs: the same of runs, by the names that stand beside them.
        x: `"parameters"`, `"macs"` or `"activations"`.
        y: `"top1"`, `"per_gmac"` or `"per_mparam"`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: another `x` or `y`, no network with top-1, or one whose `x` was not
            counted.
    """
    _check(x, X, "x")
    _check(y, Y, "y")
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
    data = list(dict.fromkeys(p["data"] for p in points))
    panels = [[p for p in points if p["data"] == name] for name in data]
    shares = [1 if len(panel) > _FEW else 0.55 for panel in panels]
    height = 4.8 if max(shares) == 1 else 3.6
    figure = style.new_figure(6.5 * sum(shares) + 0.4 * len(panels), height)
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=shares)[0]
    for one, panel, name in zip(axes, panels, data, strict=True):
        _draw(one, panel, families)
        one.set(title=name, xlabel=X[x][0], ylabel=Y[y])
    _legend(figure, families)
    for one, panel in zip(axes, panels, strict=True):
        colors = [style.series(families.index(p["family"]))["color"] for p in panel]
        names = [(p["x"], p["y"], p["label"], c) for p, c in zip(panel, colors)]
        lines = [
            line.get_xydata() for line in one.lines if line.get_linestyle() != "None"
        ]
        name_points(one, names, lines=lines)
    return figure


def _check(value, known, name):
    if value not in known:
        raise InputError(f"`{name}` is one of {', '.join(known)}. Received: {value!r}")


def _point(row, x, y, family, label):
    cost = getattr(row, x)
    if cost is None:
        raise InputError(f"`x` was not counted for {row.name}. Received: x={x!r}")
    value = row.top1 if y == "top1" else getattr(row.efficiency, y)
    scaled = cost / X[x][1]
    return {"x": scaled, "y": value, "family": family, "label": label, "data": row.data}


def _series(name):
    """The family of a network and what it is called within it."""
    table, _, row = name.rpartition("/")
    if table:
        return table, row
    starts = [start for start in _FAMILIES if name.startswith(start)]
    if not starts:
        return name, name
    start = max(starts, key=len)
    rest = name[len(start) :].removesuffix("_cifar").strip("_").upper()
    return _FAMILIES[start], _PAPERS.get(name, rest) or _FAMILIES[start]


def _kind(number, family):
    """A series' signs; where colours come again, markers are open."""
    kind = style.series(number) | {"linewidth": 0.8}
    if number >= len(style.COLOURS):
        kind["markerfacecolor"] = "white"
    if family not in _FAMILIES.values():
        # Runs, and rows of a table, are no scaling of one another.
        kind["linestyle"] = ""
    return kind


def _draw(axes, points, families):
    for number, family in enumerate(families):
        own = sorted((p["x"], p["y"]) for p in points if p["family"] == family)
        if own:
            axes.plot(*zip(*own), label=family, **_kind(number, family))
    costs = [p["x"] for p in points]
    if max(costs) > _SPREAD * min(costs):
        axes.set_xscale("log")
        axes.set_xlim(min(costs) / 1.25, max(costs) * 1.25)
        low, high = axes.get_xlim()
        axes.set_xticks([t for t in _TICKS if low <= t <= high])
        axes.set_xticks([], minor=True)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.margins(x=0.18)
    axes.margins(y=0.08)
    axes.grid(True)


def _legend(figure, families):
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], label=family, **_kind(number, family))
        for number, family in enumerate(families)
    ]
    width = figure.get_size_inches()[0]
    columns = max(1, min(len(entries), math.floor(width / 1.5)))
    figure.legend(handles=entries, loc="outside lower center", ncols=columns)
