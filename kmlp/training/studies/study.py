"""A paper's table of ablations as a study: its rows, their scale and their figures.

The table shows the paper's figures beside ours, for people and for programs.
"""

import dataclasses
import itertools
import json
import statistics
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from kmlp.artifacts.curve_files import write_rows
from kmlp.console import table
from kmlp.errors import InputError, check_choice, check_known
from kmlp.models.papers import ABLATIONS, Row
from kmlp.models.registry import described, variant
from kmlp.recipes.choosing import LARGEST_SMALL
from kmlp.training.checkpoints import writing

NONE = "_none"  # how the row ends from which gains are counted
# Name of a figure -> title of its column, how a cell is written, and its unit. Behind a
# mean stands half of its 95 % interval.
COLUMNS = {
    "row": ("row", "{}", 1),
    "paper_top1": ("top-1 paper", "{:.2f}", 1),
    "top1": ("ours", "{:.2f}", 1),
    "paper_gain": ("gain paper", "{:+.2f}", 1),
    "gain": ("ours", "{:+.2f}", 1),
    "merged_top1": ("merged", "{:.2f}", 1),
    "seeds": ("seeds", "{}", 1),
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


# Results that are known, by the row's name and the seed.
Found = dict[str, dict[int, dict[str, Any]]]
# Figures whose means have an interval.
_MEASURED = ("top1", "merged_top1")


@dataclasses.dataclass(frozen=True)
class Scale:
    """The size of a study.

    Attributes:
        name: Name for people and folders.
        training, test: Images in all; `None`: all there are.
        epochs: Epochs of each row; `None`: the recipe's.
        networks: Arguments that make the networks smaller, by architecture or row;
            `None`: they are the table's own.
        recipe: Name of the recipe; `None`: that of the table's architectures.
    """

    name: str
    training: int | None = None
    test: int | None = None
    epochs: int | None = None
    networks: dict[str, dict[str, Any]] | None = None
    recipe: str | None = None


def _scales():
    text = Path(__file__).with_name("scales.toml").read_text("utf-8")
    file = tomllib.loads(text)
    networks = {
        name: {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
        for name, arguments in file["networks"].items()
    }
    return {
        "full": Scale("full"),
        **{
            name: Scale(name, networks=networks, **sizes)
            for name, sizes in file["scales"].items()
        },
    }


SCALES = _scales()


@dataclasses.dataclass(frozen=True)
class Study:
    """A table of ablations, to be trained.

    Attributes:
        name: Name, `paper/table`.
        rows: Rows from `kmlp.models.papers`, in the table's order.
        scale: Size of the study.
        against: Row from which gains are counted, without the table's name; `None`:
            of each architecture the row without what is studied.
    """

    name: str
    rows: tuple[Row, ...]
    scale: Scale
    against: str | None = None

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
        networks = self.scale.networks
        if networks is None:
            return {}
        return {
            **networks[row.architecture],
            **row.arguments,
            **networks.get(row.name, {}),
        }

    def baseline(self, row: Row) -> Row:
        """Return the row that another's gain is over."""
        if self.against is not None:
            return next(r for r in self.rows if short(r) == self.against)
        alike = [r for r in self.rows if r.architecture == row.architecture]
        return next((r for r in alike if r.name.endswith(NONE)), alike[0])

    def lines(self, found: Found) -> list[dict[str, Any]]:
        """Return the table's rows as numbers; what is not known yet is `None`.

        A figure is the mean over the seeds, `…_interval` half of its 95 % interval. A
        gain is over the baseline of the same seeds, seed by seed.
        """
        numbers = []
        for row in self.rows:
            before, own = self.baseline(row), found.get(row.name, {})
            line: dict[str, Any] = {
                "row": short(row),
                "paper_top1": row.top1,
                "paper_gain": None,
                "paper_parameters": row.parameters and float(row.parameters) * 1e6,
                "paper_macs": row.macs and float(row.macs) * 1e9,
                "seeds": len(own) or None,
                **_means(own.values()),
                "gain": None,
            }
            if row is not before:
                if row.top1 is not None and before.top1 is not None:
                    line["paper_gain"] = row.top1 - before.top1
                line |= _with_interval("gain", self._gains(row, before, found))
            numbers.append(line)
        return numbers

    def _gains(self, row, before, found):
        """Return a row's gains over its baseline, of the seeds that both have."""
        own, theirs = found.get(row.name, {}), found.get(before.name, {})
        return [
            own[seed]["top1"] - theirs[seed]["top1"]
            for seed in own.keys() & theirs.keys()
            if "top1" in own[seed]
        ]

    def text(
        self, found: Found, names: Sequence[str] = SHOWN, form: str = "text"
    ) -> str:
        """Write the table in a form of `kmlp.console.table`."""
        cells = [[_cell(n, line) for n in names] for line in self.lines(found)]
        return table([COLUMNS[name][0] for name in names], cells, form)

    def orderings(self, found: Found) -> list[str]:
        """Say how the rows of each architecture rank by top-1, ours and the paper's."""
        said = []
        means = {line["row"]: line.get("top1") for line in self.lines(found)}
        for name in dict.fromkeys(row.architecture for row in self.rows):
            rows = [row for row in self.rows if row.architecture == name]
            if len(rows) < 2 or any(means[short(row)] is None for row in rows):
                continue
            ours = _ranked(rows, lambda row: means[short(row)])
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
                draft.write_text(content.rstrip() + "\n", "utf-8")
        plain = [
            {k: v for k, v in line.items() if not isinstance(v, dict)}
            for line in numbers
        ]
        with writing("The table", folder / f"{stem}.csv") as draft:
            write_rows(draft, plain)


def short(row: Row) -> str:
    """Return a row's name without that of its table."""
    return row.name.rpartition("/")[2]


def _means(results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return what results agree in, the means of other figures, intervals of some."""
    results = list(results)
    means: dict[str, Any] = {}
    for name in results[0] if results else ():
        values: list[Any] = [result.get(name) for result in results]
        if name in _MEASURED:
            means |= _with_interval(name, values)
        elif all(value == values[0] for value in values):
            means[name] = values[0]
        elif all(isinstance(value, int | float) for value in values):
            means[name] = statistics.fmean(values)
    means.pop("row", None)
    return means


def _with_interval(name, values):
    """Return the mean of some values, and half of its 95 % interval (Student)."""
    if not values:
        return {name: None}
    found = {name: statistics.fmean(values)}
    if len(values) > 1:
        from scipy import stats

        quantile = stats.t.ppf(0.975, len(values) - 1)
        found[f"{name}_interval"] = float(quantile * stats.sem(values))
    return found


def _cell(name, line):
    _, form, unit = COLUMNS[name]
    value, interval = line.get(name), line.get(f"{name}_interval")
    if value is None or value == "":
        return ""
    said = form.format(value if unit == 1 else value / unit)
    return said if interval is None else f"{said} ± {interval:.2f}"


def _ranked(rows: Sequence[Row], value: Callable[[Row], Any]) -> str:
    rows = sorted(rows, key=value)
    words = short(rows[0])
    for before, row in itertools.pairwise(rows):
        sign = " < " if value(before) < value(row) else " = "
        words += sign + short(row)
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
        more = f" ({others} more {_OTHERS})" if others else ""
        scales = [n for n, scale in SCALES.items() if not _unknown(rows, scale)]
        lines.append(f"{name:22} {len(rows):3} rows  {' '.join(scales):14}{more}")
    return "\n".join(line.rstrip() for line in lines)


_OTHERS = "are for larger images or were trained otherwise"


def rows_of(name: str) -> tuple[Row, ...]:
    """Return the rows of a table that are trained together.

    Where a table has networks made for small images beside others, those alone; and
    those alone that the paper trained as the first: not for longer, nor by a teacher.
    """
    rows = [row for row in ABLATIONS.values() if row.name.rpartition("/")[0] == name]
    rows = [row for row in rows if made_for(row) <= LARGEST_SMALL] or rows
    return tuple(row for row in rows if row.recipe == rows[0].recipe)


def made_for(row: Row) -> int:
    """Return the height of the images that a row's network is made for."""
    return described(row.name)[1].get("input_shape", (224,))[0] or 224


def find(
    name: str, scale: str, rows: Sequence[str] = (), against: str | None = None
) -> Study:
    """Return a study by name.

    Args:
        name: Name of the table, `paper/table`.
        scale: Name of one of `SCALES`.
        rows: Names of the rows to train, without the table's; all where none is given.
        against: Name of the row from which gains are counted; `None`: as in `Study`.

    Raises:
        InputError: If there is no such table, scale or row, or the scale does not know
            the table's networks.
    """
    check_known(name, tables(), "study")
    check_choice(SCALES, scale=scale)
    all_rows = rows_of(name)
    known = [short(row) for row in all_rows]
    for asked in rows:
        check_known(asked, known, f"row of {name}")
    chosen = tuple(row for row in all_rows if not rows or short(row) in rows)
    if against is not None:
        check_known(against, [short(row) for row in chosen], "row to train")
    study = Study(name, chosen, SCALES[scale], against)
    if unknown := _unknown(study.rows, study.scale):
        raise InputError(
            f"--scale {scale} has no smaller networks for {', '.join(unknown)}: leave "
            f"it out. Received: --study {name}"
        )
    return study


def _unknown(rows, scale):
    """Return the architectures of rows that a scale has no networks for."""
    if scale.networks is None:
        return []
    return sorted({row.architecture for row in rows} - set(scale.networks))
