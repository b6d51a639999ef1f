"""The papers' figures of the networks, read from the tables in `papers/`.

One TOML file holds one paper, table by table:

- A row is a list of cells under the table's `columns`. A column such as
  `arguments.mixing` is an entry of a dictionary. What only this row has stands behind
  the cells, by name.
- `common` holds what all rows of a table share, `repeated` the arguments that are the
  same in every stage, and for how many stages.
- Where a row leaves cells out, `like` names the row that has them, or several to be
  asked in turn: each figure stands once.
- A note is a text, a name of `notes`, or such a name and what fills its gaps.
"""

import dataclasses
import fnmatch
import functools
import re
import tomllib
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).with_suffix("")
# Of quotes of another paper's network, the first in this order counts most.
PAPERS = ("convmlp", "repmlpnet", "resmlp", "msmlp", "smlpnet")
_PLACE = re.compile(r"([a-z]+)_?(\d+|[a-z])")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A network's row in a paper's table.

    Attributes:
        name: Name `paper/table/row`, such as `"convmlp/table2/mlp_merge"`.
        source: Paper and table, such as `"ConvMLP, Table 2"`.
        architecture: Name of the variant that it is, or is a change of.
        arguments: Arguments of the variant's class that differ from the variant's.
        parameters: Trainable parameters in millions as the paper prints them, such as
            `"7.88"`; `""` where the table has none.
        macs: Multiply-adds in billions as the paper prints them (its FLOPs); `""` where
            the table has none.
        top1: Percent of `data`'s validation images, which prints as in the paper;
            `None` where the table has none.
        counted: Counts `(trainable parameters, multiply-adds)` of the network as it is
            built here, to the unit; `None`: not stated.
        training: How it was trained, where the paper says so in the table or beside it,
            such as `"100 epochs"`.
        data: Images that `top1` is on.
        image_size: Side of the square images.
        recipe: Fields of the paper's recipe that differ for the row, such as
            `{"epochs": 100}`.
        notes: What the row leaves open and how it is read here, and why our counts
            differ from the paper's.
        differs: Names of the figures (`"parameters"`, `"macs"`) that our counts do not
            agree with to half a unit of the last digit, multiply-adds to 1.5 %; `notes`
            say why.
        ablation: Whether the row is an architecture by its own name.
        reported: Whether the figures are of the variant itself.
    """

    name: str
    source: str
    architecture: str
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    parameters: str = ""
    macs: str = ""
    top1: float | None = None
    counted: tuple[int, int] | None = None
    training: str = ""
    data: str = "ImageNet-1k"
    image_size: int = 224
    recipe: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    ablation: bool = False
    reported: bool = False


@functools.cache
def read(name: str) -> dict[str, Any]:
    """Return a file of `papers/` as it is, such as `"convmlp"`."""
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text("utf-8"))


def table_rows(kind: str) -> list[dict[str, Any]]:
    """Return the rows of all papers' tables with every cell in its place.

    Args:
        kind: Kind of tables, `"tables"` of classifiers, or `"dense"` ones.

    Returns:
        Rows as `{column: cell}` of each row, with `name`, `source` and `notes`. Columns
        with a dot are dictionaries, lists are tuples, and `"none"` is `None`.
    """
    flat = {
        cells["name"]: cells
        for paper in PAPERS
        for table in read(paper).get(kind, ())
        for cells in _own_cells(paper, table)
    }
    return [_nested(_filled(cells, flat)) for cells in flat.values()]


def _own_cells(paper, table):
    """Yield each row's own cells and what its table shares, by column."""
    columns, known = table["columns"], read("notes") | read(paper).get("notes", {})
    title = "{} {}".format(*_PLACE.match(table["name"]).groups()).title()
    for row in table["rows"]:
        *cells, own = row if isinstance(row[-1], dict) else (*row, {})
        common, own = _flat(table.get("common", {})), _flat(own)
        found = common | dict(zip(columns, cells)) | own
        for key, times in table.get("repeated", {}).items():
            found[f"arguments.{key}"] = [found[f"arguments.{key}"]] * times
        notes = own.get("notes", []) + common.get("notes", [])
        name = found.get("name", found["architecture"])
        yield found | {
            "name": f"{paper}/{table['name']}/{name}",
            "source": f"{read(paper)['title']}, {title}",
            "notes": [_note(note, known) for note in notes],
            "left out": [column for column in columns if column not in found],
        }


def _filled(cells, rows):
    """Take what a row leaves out from the rows that it names."""
    left_out, like = cells.pop("left out", ()), cells.pop("like", ())
    for name in [like] if isinstance(like, str) else like:
        other = _filled(rows[name], rows)
        for column in left_out:
            if column in other:
                cells.setdefault(column, other[column])
    return cells


def _note(note, known):
    name, *values = [note] if isinstance(note, str) else note
    return known.get(name, name).format(*values)


def _flat(cells):
    found = {}
    for key, cell in cells.items():
        if isinstance(cell, dict):
            found |= {f"{key}.{entry}": value for entry, value in cell.items()}
        else:
            found[key] = cell
    return found


def _nested(cells):
    found = {}
    for column, cell in cells.items():
        group, _, key = column.partition(".")
        if key:
            found.setdefault(group, {})[key] = _value(cell)
        else:
            found[group] = _value(cell)
    return found


def _value(cell):
    if isinstance(cell, list):
        return tuple(map(_value, cell))
    return None if cell == "none" else cell


_ROWS = [Row(**cells) for cells in table_rows("tables")]
# Name -> row, in the papers' order.
ABLATIONS = {row.name: row for row in _ROWS if row.ablation}


def _is_quoted(row):
    own = read(row.name.partition("/")[0])["networks"]
    return not row.architecture.startswith(tuple(own))


# Name of a variant -> what papers print of it, its own paper's first.
REPORTED: dict[str, tuple[Row, ...]] = {}
for _row in sorted((row for row in _ROWS if row.reported), key=_is_quoted):
    REPORTED[_row.architecture] = (*REPORTED.get(_row.architecture, ()), _row)


def reported(name: str) -> Row | None:
    """Return what a network's own paper, else the first that quotes it, prints of it.

    Args:
        name: Name of `list_models()` or `list_ablations()`.

    Returns:
        The row; `None` where no paper has the network.
    """
    return REPORTED[name][0] if name in REPORTED else ABLATIONS.get(name)


def top1_of(*patterns: str) -> dict[str, float]:
    """Return `{architecture: top-1 in percent}` of rows, in the papers' order.

    Args:
        *patterns: Shell patterns of rows' names, such as `"convmlp/table3/convmlp_*"`.
    """
    return {
        row.architecture: row.top1
        for pattern in patterns
        for row in _ROWS
        if row.top1 is not None and fnmatch.fnmatchcase(row.name, pattern)
    }


def list_ablations(pattern: str = "*") -> list[str]:
    """List the papers' ablations that match a shell pattern, in the papers' order.

    Each is an architecture: `create_model` builds it, `training/train.py --arch`
    trains it.

    Args:
        pattern: Shell pattern of names, such as `"convmlp/table2/*"`.
    """
    return [name for name in ABLATIONS if fnmatch.fnmatchcase(name, pattern)]
