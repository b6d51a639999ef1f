"""Draw what the rows of a study have come to, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kmlp.errors import InputError
from kmlp.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW = 0.3  # inches
_PANELS = {"top1": "top-1, %", "gain": "gain, points of top-1"}
_SERIES = {"": "ours, with 95 % intervals", "paper_": "paper"}


@style.plot
def study(table: Mapping[str, Any]) -> Figure:
    """Draw top-1 and gains of a study's rows beside the paper's.

    A point is the mean over the seeds, with a bar over its 95 % interval; a gain is
    counted seed by seed.

    Args:
        table: Table of a study, as its `table.json` holds it.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: If no row of the table is finished.
    """
    rows = [row for row in table["rows"] if row.get("top1") is not None]
    if not rows:
        raise InputError(
            f"No row of this study is finished. Received: {table['study']!r}"
        )
    height = 1.0 + _ROW * len(rows)
    figure, panels = style.new_panels(2, 2, (3.2, height), (1.4, 0.4), sharey=True)
    for axes, (name, label) in zip(panels.flat, _PANELS.items()):
        for number, prefix in enumerate(_SERIES):
            _draw(axes, rows, prefix + name, number)
        axes.set_xlabel(label)
        axes.grid(True, axis="x")
    first, second = panels.flat
    first.set_yticks(range(len(rows)), [row["row"] for row in rows])
    first.set_ylim(len(rows) - 0.4, -0.6)
    second.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    about = table["about"]
    labels = list(_SERIES.values())
    if "paper" in about:  # its images are seldom ours
        labels[1] += f": {about['paper']}"
    style.legend_below(figure, {label: _look(n) for n, label in enumerate(labels)}, 2)
    figure.suptitle(f"{table['study']}: {about.get('data', '')}")
    return figure


def _look(number):
    return {**style.series(number), "linestyle": "none"}


def _draw(axes, rows, name, number):
    """Draw one figure of all rows that have it, a little off the others'."""
    known = [(at, row) for at, row in enumerate(rows) if row.get(name) is not None]
    if known:
        axes.errorbar(
            [row[name] for _, row in known],
            [at + 0.16 * (2 * number - 1) for at, _ in known],
            xerr=[row.get(f"{name}_interval") or 0 for _, row in known],
            capsize=3,
            **_look(number),
        )
