"""Draw lines: training curves of runs, and small weights against depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kmlp.analysis.linear import KINDS
from kmlp.analysis.sparsity import Sparsity
from kmlp.artifacts.run_curves import Curves
from kmlp.errors import InputError, check_choice
from kmlp.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Column of the validation -> title, unit, the same of the training.
_KNOWN = {
    "val_loss": ("loss", "loss", "loss"),
    "val_top1": ("top-1", "top-1 (%)", "accuracy"),
    "val_top5": ("top-5", "top-5 (%)", None),
    "val_mIoU": ("mean intersection over union", "mIoU (%)", None),
    "val_AP": ("average precision of boxes", "AP (%)", None),
    "val_mask_AP": ("average precision of masks", "mask AP (%)", None),
}
RATE = "learning_rate"
_X = {"epoch": "epoch", "step": "step", "minutes": "time (minutes)"}
_NOT_CURVES = ("epoch", "step")
_MOST_MARKERS = 12


@dataclasses.dataclass(frozen=True)
class _Panel:
    title: str
    unit: str
    validation: str | None
    training: str | None


_RATES = _Panel("learning rate", "learning rate", RATE, None)


@style.plot
def curves(
    runs: Sequence[Curves], *, columns: Sequence[str] | None = None, x: str = "epoch"
) -> Figure:
    """Draw losses and scores of runs over one another.

    A run is a colour and a marker; validation is drawn through, training dashed.

    Args:
        runs: Curves of each run.
        columns: Names of columns of `history.csv`, a panel each; `None` for the loss,
            what each run is judged by, and the learning rate.
        x: Horizontal axis, `"epoch"`, `"step"` or `"minutes"`, of training and
            validation together.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: If there is no run, a column that no run has, or no such `x`.
    """
    if not runs:
        raise InputError("There is no run to draw. Received: runs=()")
    check_choice(_X, x=x)
    panels = _default(runs) if columns is None else [_panel(c, runs) for c in columns]
    figure, places = style.new_panels(len(panels), 3, (3.6, 2.9), (0, 0.3))
    for axes, panel in zip(places.flat, panels):
        for index, run in enumerate(runs):
            _draw(axes, panel, run, x, style.series(index))
        axes.set(title=panel.title, xlabel=_X[x], ylabel=panel.unit)
        axes.grid(True)
        if panel.validation == RATE:
            axes.ticklabel_format(axis="y", scilimits=(-2, 3))
    _legend(figure, runs, panels)
    return figure


def _default(runs):
    mains = dict.fromkeys(run.score for run in runs)
    panels = [_panel("val_loss", runs, any_of=("val_loss", "loss"))]
    panels += [_panel(name, runs) for name in mains if name is not None]
    return panels + [_RATES] * any(RATE in run.steps for run in runs)


def _panel(column, runs, any_of=None):
    """Return a column's panel; validation and training of one quantity share it."""
    have = {name for run in runs for name in run.epochs} - set(_NOT_CURVES)
    steps = {name for run in runs for name in run.steps}
    if column == RATE and RATE in steps:
        return _RATES
    if not have & set(any_of or (column,)):
        raise InputError(
            "None of the runs has such a column; they have "
            f"{', '.join(sorted(have | steps & {RATE}))}. Received: {column!r}"
        )
    for validation, (title, unit, training) in _KNOWN.items():
        if column in (validation, training):
            return _Panel(title, unit, validation, training)
    if column.startswith("val_"):
        name = column.removeprefix("val_")
        shares = all(
            np.nanmax(run.epochs[column]) <= 1 for run in runs if column in run.epochs
        )
        unit = f"{name} (%)" if shares and "loss" not in name else name
        return _Panel(name, unit, column, name if name in have else None)
    return _Panel(column.replace("_", " "), column.replace("_", " "), None, column)


def _draw(axes, panel, run, x, kind):
    if panel.validation == RATE:
        if RATE in run.steps:
            at = _at(run, run.steps["step"], x)
            axes.plot(at, run.steps[RATE], color=kind["color"])
            _mark(axes, at, run.steps[RATE], kind)
        return
    factor = 100 if panel.unit.endswith("(%)") else 1
    at = _at(run, run.epochs["step"], x)
    lines = ((panel.training, "--", 0.9), (panel.validation, "-", 1.6))
    for column, line, width in lines:
        if column in run.epochs:
            values = factor * run.epochs[column]
            axes.plot(at, values, color=kind["color"], linestyle=line, linewidth=width)
            if line == "-" or panel.validation not in run.epochs:
                _mark(axes, at, values, kind)


def _mark(axes, at, values, kind):
    """Draw markers, few enough to be told apart."""
    picked = np.unique(np.linspace(0, len(at) - 1, _MOST_MARKERS).round().astype(int))
    axes.plot(at[picked], values[picked], **kind | {"linestyle": ""})


def _at(run, steps, x):
    """Return where steps stand on the axis."""
    if x == "step":
        return steps
    if x == "epoch" or run.minutes is None:
        return steps / run.steps_per_epoch
    known = np.concatenate([[0], run.epochs["step"]])
    return np.interp(steps, known, np.concatenate([[0], run.minutes]))


def _legend(figure, runs, panels):
    looks = {
        run.label: style.series(index) | {"linestyle": "-"}
        for index, run in enumerate(runs)
    }
    if any(
        panel.training in run.epochs and panel.validation in run.epochs
        for panel in panels
        for run in runs
    ):
        looks["validation"] = {"color": "0.35", "linestyle": "-"}
        looks["training"] = {"color": "0.35", "linestyle": "--", "linewidth": 0.9}
    style.legend_below(figure, looks, min(len(looks), 3 if len(panels) < 3 else 4))


@style.plot
def sparsity(networks: Mapping[str, Sparsity]) -> Figure:
    """Draw the share of weights below a threshold against depth.

    A panel per network, a line per kind of layer. Several layers of a kind in one block
    count as one, by their numbers of weights. What stands outside of blocks, embeddings
    and head, stands between their numbers.

    Args:
        networks: Sparsities by what stands above their panels.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: If there are no networks, or several thresholds.

    Reference: ResMLP (Touvron et al., 2021), Figs. 3 and B.2: there "linear" is the
    patch mixing, "MLP" are expansion and projection together.
    """
    thresholds = {measured.threshold for measured in networks.values()}
    if len(thresholds) != 1:
        raise InputError(
            "Sparsities are drawn together where they have one threshold. "
            f"Received: {sorted(thresholds)}"
        )
    (threshold,) = thresholds
    count = len(networks)
    columns = 2 if count == 4 else 3
    # To the right there is room for the legend.
    figure, panels = style.new_panels(count, columns, (3.4, 2.9), (1.9, 0), sharey=True)
    shares = {label: measured.by_depth() for label, measured in networks.items()}
    # Each kind has one colour in all panels.
    found = {kind for kinds in shares.values() for kind in kinds}
    order = sorted(found, key=lambda kind: (KINDS.index(kind.split(",")[0]), kind))
    for panel, (label, kinds) in zip(panels.flat, shares.items()):
        _draw_kinds(panel, kinds, order)
        panel.set(title=label, xlabel="depth (block)")
    for panel in panels[:, 0]:
        panel.set_ylabel(f"weights below {100 * threshold:g} % of max |w| (%)")
    lines = [line for panel in panels.flat for line in panel.lines]
    highest = max(max(line.get_ydata()) for line in lines)
    panels[0, 0].set_ylim(0, min(1.1 * highest, 100) or 100)
    # Of a kind that is joined in one panel only, the joined one.
    lines.sort(key=lambda line: line.get_linestyle() != "None")
    handles = {line.get_label(): line for line in lines}
    entries = [handles[kind] for kind in order]
    figure.legend(handles=entries, loc="outside right upper")
    return figure


def _draw_kinds(panel, kinds, order):
    from matplotlib.ticker import MaxNLocator

    for kind, rows in kinds.items():
        within = [row for row in rows if row.depth % 1 == 0]
        # Between what is in no block lies nothing to be joined.
        outside = [row for row in rows if row not in within]
        for part, joined in ((within, {}), (outside, {"linestyle": ""})):
            if part:
                panel.plot(
                    [row.depth for row in part],
                    [100 * row.small for row in part],
                    label=kind if part is within or not within else None,
                    clip_on=False,
                    **{**style.series(order.index(kind)), **joined},
                )
    panel.xaxis.set_major_locator(MaxNLocator(9, integer=True, min_n_ticks=1))
    panel.grid(axis="y")
