"""Training curves of runs over one another."""

import dataclasses

import numpy as np

from kmlp.errors import InputError
from kmlp.plots import style

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
X = {"epoch": "epoch", "step": "step", "minutes": "time (minutes)"}
_NOT_CURVES = ("epoch", "step")
_MOST_MARKERS = 12


@dataclasses.dataclass(frozen=True)
class _Panel:
    title: str
    unit: str
    validation: str | None
    training: str | None

    def shows(self, run):
        return any(c in run.epochs for c in (self.validation, self.training) if c)


@style.plot
def curves(runs, *, columns=None, x="epoch"):
    """Losses and scores of runs over one another.

    A run is a colour and a marker; validation is drawn through, training dashed.

    Args:
        runs: `kmlp.artifacts.run_curves.Curves`.
        columns: names of columns of `history.csv`, a panel each; `None`: the loss, what
            each run is judged by, and the learning rate.
        x: `"epoch"`, `"step"` or `"minutes"`, of training and validation together.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: no run, a column that no run has, or another `x`.
    """
    if not runs:
        raise InputError("There is no run to draw. Received: runs=()")
    if x not in X:
        raise InputError(f"`x` is one of {', '.join(X)}. Received: x={x!r}")
    panels = _default(runs) if columns is None else [_panel(c, runs) for c in columns]
    rows, across = style.grid_shape(len(panels), min(len(panels), 3))
    figure = style.new_figure(3.6 * across, 2.9 * rows + 0.3)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, across, number + 1)
        for index, run in enumerate(runs):
            _draw(axes, panel, run, x, style.series(index))
        axes.set(title=panel.title, xlabel=X[x], ylabel=panel.unit)
        axes.grid(True)
        if panel.validation == RATE:
            axes.ticklabel_format(axis="y", scilimits=(-2, 3))
    _legend(figure, runs, panels)
    return figure


def _default(runs):
    mains = dict.fromkeys(run.score for run in runs)
    panels = [_panel("val_loss", runs, any_of=("val_loss", "loss"))]
    panels += [_panel(name, runs) for name in mains if name is not None]
    if any(RATE in run.steps for run in runs):
        panels.append(_Panel("learning rate", "learning rate", RATE, None))
    return panels


def _panel(column, runs, any_of=None):
    """A column's panel; validation and training of one thing share it."""
    have = {name for run in runs for name in run.epochs} - set(_NOT_CURVES)
    steps = {name for run in runs for name in run.steps}
    if column == RATE and RATE in steps:
        return _Panel("learning rate", "learning rate", RATE, None)
    if not have & set(any_of or (column,)):
        raise InputError(
            "None of the runs has such a column; they have "
            f"{', '.join(sorted(have | steps & {RATE}))}. Received: {column!r}"
        )
    for validation, (title, unit, training) in _KNOWN.items():
        if column in (validation, training):
            return _Panel(title, unit, validation, training)
    if column.startswith("val_"):
        name, training = column.removeprefix("val_"), column.removeprefix("val_")
        shares = all(
            np.nanmax(run.epochs[column]) <= 1 for run in runs if column in run.epochs
        )
        unit = f"{name} (%)" if shares and "loss" not in name else name
        return _Panel(name, unit, column, training if training in have else None)
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
    """Markers, few enough to be told apart."""
    picked = np.unique(np.linspace(0, len(at) - 1, _MOST_MARKERS).round().astype(int))
    axes.plot(
        at[picked],
        values[picked],
        linestyle="",
        color=kind["color"],
        marker=kind["marker"],
    )


def _at(run, steps, x):
    """Where steps stand on the axis."""
    if x == "step":
        return steps
    if x == "epoch" or run.minutes is None:
        return steps / run.steps_per_epoch
    known = np.concatenate([[0], run.epochs["step"]])
    return np.interp(steps, known, np.concatenate([[0], run.minutes]))


def _legend(figure, runs, panels):
    from matplotlib.lines import Line2D

    entries = []
    for index, run in enumerate(runs):
        kind = style.series(index) | {"linestyle": "-"}
        entries.append(Line2D([], [], label=run.label, **kind))
    if any(
        panel.training in run.epochs and panel.validation in run.epochs
        for panel in panels
        for run in runs
    ):
        grey = {"color": "0.35"}
        entries.append(Line2D([], [], linestyle="-", label="validation", **grey))
        entries.append(
            Line2D([], [], linestyle="--", linewidth=0.9, label="training", **grey)
        )
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=min(len(entries), 3 if len(panels) < 3 else 4),
    )
