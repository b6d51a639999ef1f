"""The papers' tables of dense prediction as text, beside what is counted here."""

import itertools

from kmlp.console import aligned
from kmlp.recipes.dense_choosing import dense_recipes
from kmlp.recipes.dense_reported import REPORTED, ours

PROGRAMS = {"detection": "train_detector.py", "segmentation": "train_segmenter.py"}


def dense_table(task):
    """What the recipes of a task reproduce, by which command, how well.

    Args:
        task: `"detection"` or `"segmentation"`.
    """
    lines = []
    for name, recipe in dense_recipes(task).items():
        lines += [name, f"    {recipe.reproduces}"]
        rows = [row for row in REPORTED if row.recipe == name]
        command = f"    training/{PROGRAMS[task]}"
        if rows:
            command += f" --arch {rows[0].arch} --recipe {name} --data {recipe.data}"
        lines.append(command)
        for table, group in itertools.groupby(rows, key=lambda row: row.table):
            cells = _cells(table, list(group))
            lines += [f"    {line}" for line in aligned(cells).splitlines()]
    return "\n".join(lines)


def _cells(table, rows):
    """Header and rows; columns that no row fills are left out."""
    columns = [[table, *(row.backbone for row in rows)]]
    parameters, macs = zip(*map(ours, rows))
    for title, unit, stated, counted in (
        ("params", "M", [row.parameters for row in rows], parameters),
        ("FLOPs", "G", [row.flops for row in rows], macs),
    ):
        stated = ["" if s is None else f"{s}" for s in stated]
        columns.append([f"{title} {unit}", *stated])
        columns.append(
            [f"ours {unit}", *("" if c is None else f"{c:.2f}" for c in counted)]
        )
    for name in rows[0].figures:
        columns.append([name, *(f"{row.figures[name]}" for row in rows)])
    return list(zip(*(column for column in columns if any(column[1:]))))
