"""`kmlp list --ablations`: the papers' ablations beside what they count here."""

from kmlp.console import FORMS, progress_bar, table
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
        print(table(_RAW_HEADER, map(_raw, costs), form))
        return
    notes = list(dict.fromkeys(note for c in costs for note in c.reported.notes))
    print(table(_HEADER, [_row(c, notes, form) for c in costs], form))
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


def add_arguments(command):
    """Add the arguments of `kmlp list` and the job."""
    command.add_argument("pattern", nargs="?", default="*", help="such as 'convmlp_*'")
    shown = command.add_mutually_exclusive_group()
    shown.add_argument(
        "--costs",
        action="store_true",
        help="beside the names what they cost and reach, and the papers' figures",
    )
    shown.add_argument(
        "--weights",
        action="store_true",
        help="published weights instead, as Markdown: what they reach, how images are "
        "prepared, licence, where they are from",
    )
    shown.add_argument(
        "--ablations",
        action="store_true",
        help="the papers' tables of ablations instead, as Markdown: arguments, what "
        "was reported, what is counted here; the pattern may be a table, such as "
        "convmlp/table2",
    )
    command.add_argument(
        "--format",
        choices=FORMS,
        help="of --costs (default: markdown); csv has every figure in full",
    )
    command.set_defaults(job=run)


def run(options):
    """Prints the names, with their costs where asked, or the published weights."""
    if options.format and not options.costs:
        raise InputError(
            "--format goes with --costs; names are lines, weights and ablations "
            f"Markdown. Received: --format {options.format}"
        )
    if options.weights:
        _print_weights(options.pattern)
        return
    if options.ablations:
        print_ablations(options.pattern)
        return
    import kmlp

    names = kmlp.list_models(options.pattern)
    if not names:
        raise InputError(
            "No architecture has such a name; `kmlp list` shows all. "
            f"Received: {options.pattern!r}"
        )
    if options.costs:
        print_costs(names, options.format or "markdown")
    else:
        print("\n".join(names))


def _print_weights(pattern):
    from kmlp.weights import catalogue

    names = catalogue.list_weights(pattern)
    without = catalogue.list_unpublished(pattern)
    if not names and without:
        catalogue.published_weights(without[0])  # says what to do instead
    if not names:
        raise InputError(
            "No published weights have such a name; `kmlp list --weights` shows all. "
            f"Received: {pattern!r}"
        )
    print("| weights | reported (%) | image size | preprocessing | licence | from |")
    print("|---|---|---|---|---|---|")
    for entry in map(catalogue.WEIGHTS.get, names):
        mean, std = (
            "/".join(f"{value:g}" for value in values)
            for values in (entry.mean, entry.std)
        )
        print(
            f"| `{entry.name}` | {entry.top1} {entry.metric} | {entry.image_size} "
            f"| mean {mean}, deviation {std}, crop {entry.test_crop:.3g} "
            f"{entry.test_interpolation} | {entry.licence} "
            f"| {entry.page or entry.address} |"
        )
    if without:
        print(
            f"\nNone are listed of {', '.join(without)}: `python training/train.py "
            "--arch NAME` trains by the papers' recipes."
        )
