"""Set the forms of a network side by side, as tables for the terminal."""

from collections.abc import Callable, Sequence
from typing import Any

from kmlp.console import table

Cell = Callable[[dict[str, Any]], str | None]


def forms_table(forms: dict[str, dict[str, Any]]) -> str:
    """Return a table with a column for every form, each row once.

    Args:
        forms: Figures as `{form: figures}`; a row that no form has is left out.
    """
    rows = []
    for title, value in ROWS:
        cells = [value(values) or "" for values in forms.values()]
        if any(cells):
            rows.append((title, *cells))
    lines = [table(("", *forms), rows)]
    for name, values in forms.items():
        if "operations" in values:
            counts = (f"{op} {count}" for op, count in values["operations"].items())
            lines.append(f"{name} operations: {', '.join(counts)}")
    return "\n".join(lines)


def files_table(
    forms: dict[str, dict[str, Any]], columns: Sequence[tuple[str, Cell]], head: str
) -> str:
    """Return a table with a row for every form, each column once.

    Args:
        forms: Figures as `{form: figures}`; a column that no form has is left out.
        columns: Titles and the functions to their cells.
        head: Title of the forms.
    """
    known = [(title, cell) for title, cell in columns if any(map(cell, forms.values()))]
    rows = [(name, *(cell(form) for _, cell in known)) for name, form in forms.items()]
    return table((head, *(title for title, _ in known)), rows)


def cell(key: str, style: Callable[[Any], str | None]) -> Cell:
    """Return a function to a cell of one value, empty where a form lacks it."""
    return lambda values: style(values[key]) if key in values else None


def latency(key: int, unit: str = "") -> Cell:
    """Return a function to the milliseconds of a batch or a number of threads."""
    return cell("latency_ms", lambda known: f"{known[key]:.2f}{unit}")


_YES_NO = {True: "yes", False: "no"}.get
_FIGURES = ("AP", "AP50", "AP75", "mask_AP", "mask_AP50", "mask_AP75", "mIoU")
ROWS = (
    *((n.replace("_", " "), cell(n, "{:.2%}".format)) for n in _FIGURES),
    ("accuracy", cell("accuracy", "{:.2%}".format)),
    ("disagreements with trained", cell("disagreements", "{:,}".format)),
    ("ties", cell("ties", "{:,}".format)),
    ("largest output difference", cell("largest_difference", "{:.1e}".format)),
    ("trainable parameters", cell("trainable_parameters", "{:,}".format)),
    ("non-trainable parameters", cell("non_trainable_parameters", "{:,}".format)),
    ("multiply-adds", cell("multiply_adds", "{:,}".format)),
    ("latency, batch 1", latency(1, " ms")),
    ("latency, batch 8", latency(8, " ms")),
    ("file size", cell("bytes", lambda size: f"{size / 1e6:.1f} MB")),
    ("fully connected only", cell("fully_connected_only", _YES_NO)),
    ("convolution free", cell("convolution_free", _YES_NO)),
)
# Columns of TFLite files.
TOP1 = ("top-1", cell("top1", "{:.2%}".format))
BYTES = ("bytes", cell("bytes", "{:,}".format))
MILLISECONDS = (("ms, 1 thr.", latency(1)), ("ms, 2 thr.", latency(2)))
FC_ONLY = ("FC only", cell("fully_connected_only", _YES_NO))
