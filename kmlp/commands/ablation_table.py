"""`kmlp list --ablations`: the papers' ablations beside what they count here."""

from kmlp.errors import InputError


def print_ablations(pattern):
    """Prints the rows whose names match, as Markdown, and what they leave open.

    Raises:
        InputError: none matches.
    """
    from kmlp.models.ablations import ABLATIONS, list_ablations

    names = list_ablations(pattern) or list_ablations(f"{pattern.rstrip('/')}/*")
    if not names:
        tables = sorted({name.rpartition("/")[0] for name in ABLATIONS})
        raise InputError(
            "No ablation has such a name; the papers' tables are "
            f"{', '.join(tables)}. Received: {pattern!r}"
        )
    rows = [ABLATIONS[name] for name in names]
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    print(
        "| ablation | of | arguments | top-1 | parameters (M) | here "
        "| multiply-adds (G) | here | note |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        trainable, macs = row.counted or (None, None)
        cells = [
            f"`{row.name}`",
            f"`{row.architecture}`",
            ", ".join(f"{k}={v!r}" for k, v in row.arguments.items()) or "as it is",
            "" if row.top1 is None else f"{row.top1}",
            row.parameters,
            "" if trainable is None else f"{trainable / 1e6:.2f}",
            row.macs,
            "" if macs is None else f"{macs / 1e9:.3f}",
            f"{1 + notes.index(row.note)}" if row.note else "",
        ]
        print(f"| {' | '.join(cells)} |")
    if notes:
        print()
    for number, note in enumerate(notes, 1):
        print(f"{number}. {note}")
    print(
        f"\n`kmlp.create_model({rows[0].name!r})` builds one, `python "
        f"training/train.py --arch {rows[0].name}` trains it. Figures of the papers "
        "stand before ours (here)."
    )
