"""The forms of a network side by side, as a table for the terminal."""

from collections.abc import Callable
from typing import Any

from kmlp.console import table


def forms_table(forms: dict[str, dict[str, Any]]) -> str:
    """Return a table with a column for every form, each row once.

    Args:
        forms: `{form: figures}`; a row that no form has is left out.
    """
    rows = []
    for title, cell in ROWS:
        cells = [cell(values) or "" for values in forms.values()]
        if any(cells):
            rows.append((title, *cells))
    lines = [table(("", *forms), rows)]
    for name, values in forms.items():
        if "operations" in values:
            counts = (f"{op} {count}" for op, count in values["operations"].items())
            lines.append(f"{name} operations: {', '.join(counts)}")
    return "\n".join(lines)


def _of(key: str, style: Callable[[Any], str]) -> Callable[[dict], str | None]:
    """Return a function to a cell of one value, empty where a form lacks it."""

    def cell(values):
        return style(values[key]) if key in values else None

    return cell


def _latency(batch: int) -> Callable[[dict], str | None]:
    return _of("latency_ms", lambda by_batch: f"{by_batch[batch]:.2f} ms")


_FIGURES = ("AP", "AP50", "AP75", "mask_AP", "mask_AP50", "mask_AP75", "mIoU")
ROWS = (
    *((n.replace("_", " "), _of(n, "{:.2%}".format)) for n in _FIGURES),
    ("accuracy", _of("accuracy", "{:.2%}".format)),
    ("disagreements with trained", _of("disagreements", "{:,}".format)),
    ("ties", _of("ties", "{:,}".format)),
    ("largest output difference", _of("largest_difference", "{:.1e}".format)),
    ("trainable parameters", _of("trainable_parameters", "{:,}".format)),
    ("non-trainable parameters", _of("non_trainable_parameters", "{:,}".format)),
    ("multiply-adds", _of("multiply_adds", "{:,}".format)),
    ("latency, batch 1", _latency(1)),
    ("latency, batch 8", _latency(8)),
    ("file size", _of("bytes", lambda size: f"{size / 1e6:.1f} MB")),
    (
        "fully connected only",
        _of("fully_connected_only", {True: "yes", False: "no"}.get),
    ),
)
