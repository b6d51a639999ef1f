"""A paper's table of ablations as a study: its rows, their scale and their figures.

The table shows the paper's figures beside ours, for people and for programs.
"""

import dataclasses
import itertools
import json
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kmlp.console import table
from kmlp.errors import InputError, check_choice, check_known
from kmlp.models.papers import ABLATIONS, Row
from kmlp.models.registry import described, variant
from kmlp.recipes.choosing import LARGEST_SMALL
from kmlp.training.checkpoints import writing
from kmlp.training.monitor import write_rows

NONE = "_none"  # how the row ends from which gains are counted
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
SHOWN = tuple(name for name in COLUMNS if name != "step_ms")
REHEARSAL = (
    "A rehearsal of the machinery, with smaller networks and fewer images and epochs: "
    "its figures and their ordering are no claim."
)


# Result of each row that is known, by the row's name.
Found = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Scale:
    """The size of a study.

    Attributes:
        name: Name for people and folders.
        training, test: Images in all; `None`: all there are.
        epochs: Epochs of each row; `None`: the recipe's.
        arguments: Arguments by class that make its networks smaller; `None`: they are
            the table's own.
    """

    name: str
    training: int | None = None
    test: int | None = None
    epochs: int | None = None
    arguments: dict[str, dict[str, Any]] | None = None


# Smoke is a rehearsal: eight rows of Table 4 in a quarter of an hour on two cores.
SCALES = types.MappingProxyType(
    {
        "full": Scale("full"),
        "smoke": Scale(
            "smoke",
            training=10_000,
            test=2000,
            epochs=8,
            arguments={
                "RepMLPNet": {
                    "depths": (1, 1),
                    "widths": (32, 64),
                    "share_sets": (4, 8),
                },
                # With patches of 2 so narrow a network learns little but colours.
                "ResMLP": {"depth": 4, "width": 64, "patch_size": 4},
            },
        ),
    }
)


@dataclasses.dataclass(frozen=True)
class Study:
    """A table of ablations, to be trained.

    Attributes:
        name: Name, `paper/table`.
        rows: Rows from `kmlp.models.papers`, in the table's order.
        scale: Size of the study.
    """

    name: str
    rows: tuple[Row, ...]
    scale: Scale

    @property
    def folder(self) -> str:
        """Name of the study's folder."""
        suffix = "" if self.scale.name == "full" else f"-{self.scale.name}"
        return self.name.replace("/", "_") + suffix

    def arguments(self, row: Row) -> tuple[type, dict[str, Any]]:
        """Return class and arguments of a row's network at this scale."""
        family, arguments = variant(row.name)
        return family, {**arguments, **self.smaller(row)}

    def smaller(self, row: Row) -> dict[str, Any]:
        """Return the arguments of a row's network that the scale decides."""
        if self.scale.arguments is None:
            return {}
        return self.scale.arguments[described(row.name)[0]]

    def reference(self, row: Row) -> Row:
        """Return the row that another's gain is over: without what is studied."""
        alike = [r for r in self.rows if r.architecture == row.architecture]
        return next((r for r in alike if r.name.endswith(NONE)), alike[0])

    def lines(self, found: Found) -> list[dict[str, Any]]:
        """Return the table's rows as numbers; what is not known yet is `None`."""
        numbers = []
        for row in self.rows:
            own, before = found.get(row.name, {}), self.reference(row)
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

    def text(
        self, found: Found, names: Sequence[str] = SHOWN, form: str = "text"
    ) -> str:
        """Write the table in a form of `kmlp.console.table`."""
        cells = [[_cell(n, line.get(n)) for n in names] for line in self.lines(found)]
        return table([COLUMNS[name][0] for name in names], cells, form)

    def orderings(self, found: Found) -> list[str]:
        """Say how the rows of each architecture rank by top-1, ours and the paper's."""
        said = []
        for name in dict.fromkeys(row.architecture for row in self.rows):
            rows = [row for row in self.rows if row.architecture == name]
            if len(rows) < 2 or any(
                "top1" not in found.get(row.name, {}) for row in rows
            ):
                continue
            ours = _ranked(rows, lambda row: found[row.name]["top1"])
            paper = ""
            if all(row.top1 is not None for row in rows):
                paper = f"; paper: {_ranked(rows, lambda row: row.top1)}"
            said.append(f"{name}: {ours}{paper}")
        return said

    def write(
        self,
        found: Found,
        folder: Path,
        about: dict[str, str],
        names: Sequence[str] = SHOWN,
        stem: str = "table",
    ) -> None:
        """Write `table.md`, `table.csv` and `table.json`, each whole.

        Args:
            found: Results of the rows.
            folder: Folder of the files.
            about: What all rows have in common, by a word each.
            names: Names of the columns.
            stem: Name of the files.

        Raises:
            RunError: If they cannot be written.
        """
        numbers = self.lines(found)
        said = [self.orderings(found), [f"{word}: {a}" for word, a in about.items()]]
        listed = ["\n".join(f"- {line}" for line in part) for part in said]
        parts = [f"# {self.name}", self.text(found, names, "markdown"), *listed]
        known = {"study": self.name, "about": about, "rows": numbers}
        contents = {
            "md": "\n\n".join(part for part in parts if part),
            "json": json.dumps(known, indent=2),
        }
        for suffix, content in contents.items():
            with writing("The table", folder / f"{stem}.{suffix}") as draft:
                draft.write_text(content.rstrip() + "\n")
        plain = [
            {k: v for k, v in line.items() if not isinstance(v, dict)}
            for line in numbers
        ]
        with writing("The table", folder / f"{stem}.csv") as draft:
            write_rows(draft, plain)


def _gain(value, before, first):
    if first or value is None or before is None:
        return None
    return value - before


def _cell(name, value):
    _, form, unit = COLUMNS[name]
    if value is None or value == "":
        return ""
    return form.format(value if unit == 1 else value / unit)


def _ranked(rows: Sequence[Row], value: Callable[[Row], Any]) -> str:
    rows = sorted(rows, key=value)
    words = rows[0].name.rpartition("/")[2]
    for before, row in itertools.pairwise(rows):
        sign = " < " if value(before) < value(row) else " = "
        words += sign + row.name.rpartition("/")[2]
    return words


def tables() -> list[str]:
    """Return the names of all tables of ablations, `paper/table`."""
    return list(dict.fromkeys(name.rpartition("/")[0] for name in ABLATIONS))


def listed() -> str:
    """List the tables that a study can train, for the terminal."""
    lines = []
    for name in tables():
        rows = rows_of(name)
        others = sum(n.startswith(f"{name}/") for n in ABLATIONS) - len(rows)
        more = f" ({others} more are for larger images)" if others else ""
        lines.append(f"{name:22} {len(rows):3} rows{more}")
    return "\n".join(lines)


def rows_of(name: str) -> tuple[Row, ...]:
    """Return the rows of a table that are trained together.

    Where a table has networks made for small images beside others, those alone.
    """
    rows = [row for row in ABLATIONS.values() if row.name.rpartition("/")[0] == name]
    small = [row for row in rows if made_for(row) <= LARGEST_SMALL]
    return tuple(small or rows)


def made_for(row: Row) -> int:
    """Return the height of the images that a row's network is made for."""
    return described(row.name)[1].get("input_shape", (224,))[0] or 224


def find(name: str, scale: str) -> Study:
    """Return a study by name.

    Args:
        name: Name of the table, `paper/table`.
        scale: Name of one of `SCALES`.

    Raises:
        InputError: If there is no such table or scale, or the scale does not know the
            table's networks.
    """
    known = tables()
    check_known(name, known, "study")
    check_choice(SCALES, scale=scale)
    study = Study(name, rows_of(name), SCALES[scale])
    smaller = study.scale.arguments
    if smaller is not None:
        families = {described(row.name)[0] for row in study.rows}
        if unknown := sorted(families - set(smaller)):
            raise InputError(
                f"--scale {scale} is for networks of {' and '.join(sorted(smaller))}: "
                f"leave it out. Received: --study {name}, of {', '.join(unknown)}"
            )
    return study
