"""The report of a run, as a table for the terminal."""

from kmlp.console import aligned


def table(forms, first=()):
    """The forms of a model side by side.

    Args:
        forms: `{name: values}` from `kmlp.training.publishing.publish`.
        first: further rows that stand above the others, `(title, function of a form's
            values to text or None)`.
    """
    rows = [("", *forms)]
    for title, cell in (*first, *ROWS):
        cells = [cell(values) or "" for values in forms.values()]
        if any(cells):
            rows.append((title, *cells))
    lines = [aligned(rows)]
    for name, values in forms.items():
        if "operations" in values:
            counts = (f"{op} {count}" for op, count in values["operations"].items())
            lines.append(f"{name} operations: {', '.join(counts)}")
    return "\n".join(lines)


def _of(key, style):
    """A cell of one value, empty where a form does not have it."""

    def cell(values):
        return style(values[key]) if key in values else None

    return cell


def _latency(batch):
    return _of("latency_ms", lambda by_batch: f"{by_batch[batch]:.2f} ms")


ROWS = (
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
