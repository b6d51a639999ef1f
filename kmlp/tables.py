"""A table of rows as text for people, as CSV for programs, as Markdown for pages."""

import csv
import io

from kmlp.console import aligned
from kmlp.errors import InputError

FORMS = ("text", "csv", "markdown")


def add_format(command, default="text"):
    """Adds `--format`, the form of what a job prints.

    Args:
        command: the parser.
        default: the form without it; `None`: told apart, and text.
    """
    command.add_argument(
        "--format",
        choices=FORMS,
        default=default,
        help=f"how the table is written (default: {default or 'text'})",
    )


def table(header, rows, form="text", left=1):
    """Rows under a header, without a final line break.

    Args:
        header: the columns' titles.
        rows: sequences of as many cells; what is no string is written as `str`
            writes it, `None` as an empty cell. Numbers that a program shall read
            come without separators of thousands.
        form: `"text"`, `"csv"` or `"markdown"`.
        left: how many columns stand left, where the form knows sides.

    Raises:
        InputError: an unknown form, or a row of another length.
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
