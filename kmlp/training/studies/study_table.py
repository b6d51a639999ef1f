"""A study's table: the paper's figures beside ours, for people and for programs."""

import csv
import itertools
import json

from kmlp.atomic import new_file
from kmlp.console import aligned
from kmlp.errors import RunError

HEADER = (
    ("row", "row"),
    ("top-1 paper", "paper_top1"),
    ("ours", "top1"),
    ("gain paper", "paper_gain"),
    ("ours", "gain"),
    ("merged", "merged_top1"),
    ("parameters", "parameters"),
    ("paper", "paper_parameters"),
    ("MMACs", "macs"),
    ("paper", "paper_macs"),
    ("images/s", "images_per_second"),
    ("of peak", "peak_share"),
)
SPEED = ("row", "parameters", "macs", "step_ms", "images_per_second", "peak_share")
REHEARSAL = (
    "A rehearsal of the machinery, with smaller networks and fewer images and epochs: "
    "its figures and their ordering are no claim."
)


def lines(study, found):
    """The table's rows as numbers; what is not known yet is `None`.

    Args:
        study: `Study`.
        found: `{name of a row: its result}`.
    """
    table = []
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
        table.append(line)
    return table


def _gain(value, before, first):
    if first or value is None or before is None:
        return None
    return value - before


def _cells(table, names):
    return [[_cell(name, line.get(name)) for name in names] for line in table]


def _cell(name, value):
    if value is None or value == "":
        return ""
    if "gain" in name:
        return f"{value:+.2f}"
    if "top1" in name:
        return f"{value:.2f}"
    if name == "paper_parameters":
        return f"{value / 1e6:.1f} M"
    if name == "paper_macs":
        return f"{value / 1e6:,.0f}"
    if name == "macs":
        return f"{value / 1e6:,.1f}"
    if name == "peak_share":
        return f"{value:.1%}"
    if name == "step_ms":
        return f"{value:,.2f}"
    return value if isinstance(value, str) else f"{value:,.0f}"


def text(study, found, names=None):
    """The table for the terminal."""
    header, names = _chosen(names)
    return aligned([header, *_cells(lines(study, found), names)])


def _chosen(names):
    if names is None:
        return [title for title, _ in HEADER], [name for _, name in HEADER]
    titles = {name: title for title, name in HEADER} | {"step_ms": "ms/step"}
    return [titles[name] for name in names], list(names)


def orderings(study, found):
    """How the rows of each architecture rank by top-1, ours and the paper's."""
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


def _ranked(rows, value):
    rows = sorted(rows, key=value)
    words = rows[0].name.rpartition("/")[2]
    for before, row in itertools.pairwise(rows):
        sign = " < " if value(before) < value(row) else " = "
        words += sign + row.name.rpartition("/")[2]
    return words


def write(study, found, folder, about, names=None, stem="table"):
    """Writes `table.md`, `table.csv` and `table.json`, each whole.

    Args:
        about: `{word: text}`, what all rows have in common.
        names: of the columns; `None`: all.
        stem: of the files.

    Raises:
        InputError: they cannot be written.
    """
    table = lines(study, found)
    texts = {
        "md": _markdown(study, found, about, names),
        "json": json.dumps(
            {"study": study.name, "about": about, "rows": table}, indent=2
        ),
    }
    try:
        for suffix, content in texts.items():
            with new_file(folder / f"{stem}.{suffix}") as draft:
                draft.write_text(content.rstrip() + "\n")
        plain = [
            {k: v for k, v in line.items() if not isinstance(v, dict)} for line in table
        ]
        fields = list(dict.fromkeys(name for line in plain for name in line))
        path = folder / f"{stem}.csv"
        with new_file(path) as draft, open(draft, "w", newline="") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(plain)
    except OSError as error:
        raise RunError(
            f"The table cannot be written ({error}): make room, then give the same "
            f"command again. Received: {str(folder)!r}",
        ) from error


def _markdown(study, found, about, names):
    header, names = _chosen(names)
    body = _cells(lines(study, found), names)
    rules = [":--", *["--:"] * (len(header) - 1)]
    rows = ["| " + " | ".join(cells) + " |" for cells in (header, rules, *body)]
    parts = [f"# {study.name}", "\n".join(rows)]
    parts += ["\n".join(f"- {said}" for said in orderings(study, found))]
    parts += ["\n".join(f"- {word}: {said}" for word, said in about.items())]
    return "\n\n".join(part for part in parts if part)
