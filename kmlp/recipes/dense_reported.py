"""The papers' figures of dense prediction, beside the costs counted here."""

import dataclasses
import itertools
import textwrap
from typing import Any

from kmlp.console import table
from kmlp.models.papers import read, table_rows
from kmlp.recipes.dense_choosing import dense_recipes

PROGRAMS = {"detection": "train_detector.py", "segmentation": "train_segmenter.py"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reported:
    """A row of a paper's table of dense prediction.

    Attributes:
        recipe: Name of the `DenseRecipe` that trains it.
        table: Paper and number.
        backbone: Name of the backbone in the paper.
        arch: Name of the backbone in `kmlp.create_model`.
        model: Arguments of the backbone besides the recipe's.
        parameters: Millions, of backbone and head; `None`: not stated.
        flops: Cost in 10⁹ multiplications and additions, counted as one; `None`: not
            stated.
        figures: Figures as `{name: percent}`.
        counted: Millions of parameters and 10⁹ multiply-adds of the network as it is
            built here; the latter `None` where its windows do not tile the size at
            which the paper counts.
    """

    recipe: str
    table: str
    backbone: str
    arch: str
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    parameters: float | None = None
    flops: float | None = None
    figures: dict[str, float]
    counted: tuple[float, float | None]


def _reported(*, name, source, architecture, notes, **cells):
    """Return a row of `table_rows`; cells that are no fields are figures."""
    paper, _, recipe, _ = name.split("/")
    own = {field: cells.pop(field) for field in _OPTIONAL if field in cells}
    return Reported(
        recipe=recipe,
        table=source,
        arch=architecture,
        **{"backbone": read(paper)["backbones"][architecture]} | own,
        figures=cells,
    )


_OPTIONAL = ("backbone", "model", "parameters", "flops", "counted")
REPORTED = tuple(_reported(**cells) for cells in table_rows("dense"))


def dense_table(task: str) -> str:
    """Say what the recipes of a task reproduce, by which command and how well.

    Args:
        task: Task, `"detection"` or `"segmentation"`.
    """
    lines = []
    for name, recipe in dense_recipes(task).items():
        lines += [name, f"    {recipe.reproduces}"]
        rows = [row for row in REPORTED if row.recipe == name]
        command = f"    training/{PROGRAMS[task]}"
        if rows:
            command += f" --arch {rows[0].arch} --recipe {name} --data {recipe.data}"
        lines.append(command)
        for title, group in itertools.groupby(rows, key=lambda row: row.table):
            lines.append(textwrap.indent(_printed(title, list(group)), "    "))
    return "\n".join(lines)


def _printed(title, rows):
    """Return rows as text; columns that no row fills are left out."""
    parameters, macs = zip(*(row.counted for row in rows))
    columns = {
        title: [row.backbone for row in rows],
        "params M": [row.parameters for row in rows],
        "ours M": [f"{count:.2f}" for count in parameters],
        "FLOPs G": [row.flops for row in rows],
        "ours G": [count and f"{count:.2f}" for count in macs],
    } | {name: [row.figures[name] for row in rows] for name in rows[0].figures}
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    return table(list(filled), zip(*filled.values()))
