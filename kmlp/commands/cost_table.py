"""`kmlp list --costs`: what the architectures cost and reach, beside the papers."""

from kmlp import tables
from kmlp.console import progress_bar

_HEADER = (
    "architecture",
    "image size",
    "parameters (M)",
    "multiply-adds (G)",
    "activations (M)",
    "top-1 (%)",
    "per GMAC",
    "per M parameters",
    "reported in",
    "note",
)
_RAW_HEADER = (
    "architecture",
    "height",
    "width",
    "parameters",
    "reported_parameters_millions",
    "multiply_adds",
    "reported_multiply_adds_billions",
    "activations",
    "top1_percent",
    "top1_data",
    "top1_per_gmac",
    "reported_top1_per_gmac",
    "top1_per_million_parameters",
    "reported_top1_per_million_parameters",
    "reported_in",
    "training",
    "differs",
    "note",
)


def count(names):
    """`kmlp.analysis.efficiency.Cost`s of architectures, with a bar while it lasts."""
    from kmlp.analysis.efficiency import costs

    counted = []
    with progress_bar(len(names), "network") as bar:
        for one in costs(names):
            counted.append(one)
            bar.update()
    return counted


def print_costs(names, form):
    """Counts architectures and prints a row for each.

    Args:
        names: of `kmlp.list_models()`.
        form: `"markdown"`, `"text"` or `"csv"`.
    """
    costs = count(names)
    if form == "csv":
        print(tables.table(_RAW_HEADER, map(_raw, costs), form))
        return
    notes = list(dict.fromkeys(note for c in costs for note in c.reported.notes))
    print(tables.table(_HEADER, [_row(c, notes, form) for c in costs], form))
    print(
        "\nParameters and multiply-adds are counted here, in the train form; what the "
        "paper has is in brackets. Top-1 is the paper's, on ImageNet-1k where nothing "
        "else is said, divided by what is counted here, in brackets by the paper's."
    )
    if notes:
        print()
    for number, note in enumerate(notes, 1):
        print(f"{number}. {note}")


def _row(cost, notes, form):
    row, ours, theirs = cost.reported, cost.efficiency, cost.reported_efficiency
    source = row.source if row.data == "ImageNet-1k" else f"{row.source} ({row.data})"
    return (
        f"`{cost.name}`" if form == "markdown" else cost.name,
        "x".join(map(str, cost.image_size)),
        _beside(f"{cost.parameters / 1e6:.2f}", row.parameters),
        _beside(f"{cost.macs / 1e9:.2f}", row.macs),
        f"{cost.activations / 1e6:.1f}",
        row.top1,
        _beside(f"{ours.per_gmac:.1f}", f"{theirs.per_gmac:.1f}"),
        _beside(f"{ours.per_mparam:.1f}", f"{theirs.per_mparam:.1f}"),
        source,
        ", ".join(str(notes.index(note) + 1) for note in row.notes),
    )


def _beside(ours, theirs):
    return f"{ours} ({theirs})"


def _raw(cost):
    row, ours, theirs = cost.reported, cost.efficiency, cost.reported_efficiency
    return (
        cost.name,
        *cost.image_size,
        cost.parameters,
        row.parameters,
        cost.macs,
        row.macs,
        cost.activations,
        row.top1,
        row.data,
        f"{ours.per_gmac:.4f}",
        f"{theirs.per_gmac:.4f}",
        f"{ours.per_mparam:.4f}",
        f"{theirs.per_mparam:.4f}",
        row.source,
        row.training,
        " ".join(row.differs),
        " ".join(row.notes),
    )
