"""Write a table as text for people, CSV for programs or Markdown for pages."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from kmlp.console import aligned
from kmlp.errors import InputError

FORMS = ("text", "csv", "markdown")


def table(
    header: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    form: str = "text",
    left: int = 1,
) -> str:
    """Return rows under a header, without a final line break.

    Args:
        header: Titles of the columns.
        rows: Sequences of as many cells. What is no string is written by `str`,
            `None` as an empty cell. Numbers for programs come without separators.
        form: `"text"`, `"csv"` or `"markdown"`.
        left: Number of columns that are aligned left, where the form knows sides.

    Raises:
        InputError: If the form is unknown, or a row has another length.
    """
    if form not in FORMS:
        raise InputError(f"form must be one of {FORMS}. Received: {form!r}")
    cells = [["" if c is None else str(c) for c in row] for row in (header, *rows)]
    for row in cells:
        if len(row) != len(cells[0]):
            raise InputError(
                f"Each row needs {len(cells[0])} cells, one per column. Received: {row}"
            )
    if form == "text":
        return aligned(cells, left)
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(cells)
        return text.getvalue().removesuffix("\n")
    sides = ["---" if i < left else "---:" for i in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], f"|{'|'.join(sides)}|", *lines[1:]])
