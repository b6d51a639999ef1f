"""A compression as a table for the terminal."""

from kmlp.console import aligned

FIELDS = (
    ("top-1", lambda form: f"{form['top1']:.2%}"),
    ("points lost", lambda form: f"{form['drop_points']:+.2f}"),
    ("bytes", lambda form: f"{form['bytes']:,}"),
    ("gzip", lambda form: f"{form['gzip_bytes']:,}"),
    ("ms, 1 thr.", lambda form: f"{form['latency_ms'][1]:.2f}"),
    ("ms, 2 thr.", lambda form: f"{form['latency_ms'][2]:.2f}"),
)


def table(report):
    """Files before and after, and the sparsity of each kind of layer."""
    forms = report["forms"]
    rows = [("TFLite", *(title for title, _ in FIELDS))]
    rows += [
        (name, *(cell(form) for _, cell in FIELDS)) for name, form in forms.items()
    ]
    before, after = (report["sparsity"][when] for when in ("before", "after"))
    shares = [
        ("layers", "weights", "below 5%", "zero", "below 5%, after", "zero, after")
    ]
    for kind, old in before.items():
        values = (old["small"], old["zero"], after[kind]["small"], after[kind]["zero"])
        shares.append((kind, f"{old['size']:,}", *(f"{v:.1%}" for v in values)))
    return "\n\n".join(map(aligned, (rows, shares)))
