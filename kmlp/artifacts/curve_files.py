"""The files of curves: tables of numbers as CSV, a row for an epoch or a step."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.atomic import new_file
from kmlp.errors import InputError


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a curve by name, `nan` where a cell is empty.

    Half a line at the end is left out: a run that goes on meanwhile is writing it. A
    file without a column `step` is no curve and has no columns.

    Raises:
        InputError: If the file is damaged.
        OSError: If it cannot be read.
    """
    rows: list[list[float]] = []
    lines = path.read_bytes().splitlines(keepends=True)
    names: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            cells = line.decode("utf-8-sig").strip().split(",")
            names = names or cells
            if "step" not in names:
                return {}
            if len(cells) != len(names):
                raise ValueError(f"{len(cells)} cells in place of {len(names)}")
            if number > 1:
                rows.append([float(cell or "nan") for cell in cells])
        except ValueError as error:
            if line is lines[-1] and not line.endswith(b"\n"):
                break
            raise InputError(
                f"This curve is damaged in line {number} ({str(error)[:80]!r}): where "
                "its run is not finished, the same command writes it anew from the "
                f"checkpoint. Received: {str(path)!r}"
            ) from error
    columns = np.array(rows, float).reshape(len(rows), len(names)).T
    return dict(zip(names, columns))


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to a CSV file, which begins with them where it is not there."""
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[-1]))
        if not file.tell():
            writer.writeheader()
        writer.writerows(rows)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as a CSV file in one step, with all their columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (
        new_file(path) as draft,
        open(draft, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
