"""A study's table: the paper's figures beside ours, for people and for programs."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kmlp.console import table
from kmlp.models.papers import Row
from kmlp.training.checkpoints import writing
from kmlp.training.monitor import write_rows
from kmlp.training.studies.study import Study

# Name of a figure -> title of its column, how a cell is written, and its unit.
COLUMNS = {
    "row": ("row", "{}", 1),
    "paper_top1": ("top-1 paper", "{:.2f}", 1),
    "top1": ("ours", "{:.2f}", 1),
    "paper_gain": ("gain paper", "{:+.2f}", 1),
    "gain": ("ours", "{:+.2f}", 1),
    "merged_top1": ("merged", "{:.2f}", 1),
    "parameters": ("parameters", "{:,.0f}", 1),
    "paper_parameters": ("paper", "{:.1f} M", 1e6),
    "macs": ("MMACs", "{:,.1f}", 1e6),
    "paper_macs": ("paper", "{:,.0f}", 1e6),
    "step_ms": ("ms/step", "{:,.2f}", 1),
    "images_per_second": ("images/s", "{:,.0f}", 1),
    "peak_share": ("of peak", "{:.1%}", 1),
}
SPEED = ("row", "parameters", "macs", "step_ms", "images_per_second", "peak_share")
ALL = tuple(name for name in COLUMNS if name != "step_ms")
REHEARSAL = (
    "A rehearsal of the machinery, with smaller networks and fewer images and epochs: "
    "its figures and their ordering are no claim."
)


# Result of each row that is known, by the row's name.
Found = dict[str, dict[str, Any]]


def lines(study: Study, found: Found) -> list[dict[str, Any]]:
    """Return the table's rows as numbers; what is not known yet is `None`."""
    numbers = []
    for row in study.rows:
        own, before = found.get(row.name, {}), study.reference(row)
        line = {
            "row": row.name.rpartition("/")[2],
            "paper_top1": row.top1,
            "paper_gain": _gain(row.top1, before.top1, row is before),
            "paper_parameters": row.parameters and float(row.parameters) * 1e6,
            "paper_macs": row.macs and float(row.macs) * 1e9,
            **{key: value for key, value in own.items() if key != "row"},
        }
        line["gain"] = _gain(
            own.get("top1"), found.get(before.name, {}).get("top1"), row is before
        )
        numbers.append(line)
    return numbers


def _gain(value, before, first):
    if first or value is None or before is None:
        return None
    return value - before


def _cell(name, value):
    _, form, unit = COLUMNS[name]
    if value is None or value == "":
        return ""
    return form.format(value if unit == 1 else value / unit)


def text(
    study: Study, found: Found, names: Sequence[str] = ALL, form: str = "text"
) -> str:
    """Write the table for the terminal, or in another form of `kmlp.tables`."""
    cells = [[_cell(n, line.get(n)) for n in names] for line in lines(study, found)]
    return table([COLUMNS[name][0] for name in names], cells, form)


def orderings(study: Study, found: Found) -> list[str]:
    """Say how the rows of each architecture rank by top-1, ours and the paper's."""
    said = []
    for name in dict.fromkeys(row.architecture for row in study.rows):
        rows = [row for row in study.rows if row.architecture == name]
        if len(rows) < 2 or any("top1" not in found.get(row.name, {}) for row in rows):
            continue
        ours = _ranked(rows, lambda row: found[row.name]["top1"])
        paper = ""
        if all(row.top1 is not None for row in rows):
            paper = f"; paper: {_ranked(rows, lambda row: row.top1)}"
        said.append(f"{name}: {ours}{paper}")
    return said


def _ranked(rows: Sequence[Row], value: Callable[[Row], Any]) -> str:
    rows = sorted(rows, key=value)
    words = rows[0].name.rpartition("/")[2]
    for before, row in itertools.pairwise(rows):
        sign = " < " if value(before) < value(row) else " = "
        words += sign + row.name.rpartition("/")[2]
    return words


def write(
    study: Study,
    found: Found,
    folder: Path,
    about: dict[str, str],
    names: Sequence[str] = ALL,
    stem: str = "table",
) -> None:
    """Write `table.md`, `table.csv` and `table.json`, each whole.

    Args:
        study: Study of the rows.
        found: Results of the rows.
        folder: Folder of the files.
        about: What all rows have in common, by a word each.
        names: Names of the columns.
        stem: Name of the files.

    Raises:
        RunError: If they cannot be written.
    """
    numbers = lines(study, found)
    said = [orderings(study, found), [f"{word}: {a}" for word, a in about.items()]]
    listed = ["\n".join(f"- {line}" for line in part) for part in said]
    parts = [f"# {study.name}", text(study, found, names, "markdown"), *listed]
    known = {"study": study.name, "about": about, "rows": numbers}
    contents = {
        "md": "\n\n".join(part for part in parts if part),
        "json": json.dumps(known, indent=2),
    }
    for suffix, content in contents.items():
        with writing("The table", folder / f"{stem}.{suffix}") as draft:
            draft.write_text(content.rstrip() + "\n")
    plain = [
        {k: v for k, v in line.items() if not isinstance(v, dict)} for line in numbers
    ]
    with writing("The table", folder / f"{stem}.csv") as draft:
        write_rows(draft, plain)
