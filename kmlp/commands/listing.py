"""`kmlp list`: architectures, published weights and the papers' ablations by name."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kmlp.commands.arguments import Parser
from kmlp.console import FORMS, progress_bar, table
from kmlp.errors import InputError
from kmlp.models.papers import ABLATIONS, list_ablations
from kmlp.models.registry import list_models

if TYPE_CHECKING:
    from kmlp.analysis.efficiency import Cost


def add_arguments(command: Parser) -> None:
    """Add the arguments of `kmlp list` and the job."""
    command.add_argument("pattern", nargs="?", default="*", help="such as 'convmlp_*'")
    shown = command.add_mutually_exclusive_group()
    for flag, text in (
        (
            "--costs",
            "beside the names their costs and accuracy, and the papers' figures",
        ),
        (
            "--weights",
            "published weights instead, as Markdown: what they reach, how images are "
            "prepared, licence, where they are from",
        ),
        (
            "--ablations",
            "the papers' tables of ablations instead, as Markdown: arguments, what was "
            "reported, what is counted here; the pattern may be a table, such as "
            "convmlp/table2",
        ),
    ):
        shown.add_argument(flag, action="store_true", help=text)
    command.add_argument(
        "--format",
        choices=FORMS,
        help="of --costs (default: markdown); csv has every figure in full",
    )
    command.set_defaults(job=run)


def run(options: argparse.Namespace) -> None:
    """Print the names, with their costs where asked, or the published weights."""
    if options.format and not options.costs:
        raise InputError(
            "--format goes with --costs; names are lines, weights and ablations "
            f"Markdown. Received: --format {options.format}"
        )
    if options.weights:
        _print_weights(options.pattern)
    elif options.ablations:
        _print_ablations(options.pattern)
    else:
        names = list_models(options.pattern)
        known = "`kmlp list` shows all"
        _check_found(names, "No architecture has", known, options.pattern)
        if options.costs:
            _print_costs(names, options.format or "markdown")
        else:
            print("\n".join(names))


def _check_found(names, none_has, known, pattern):
    if not names:
        raise InputError(f"{none_has} such a name; {known}. Received: {pattern!r}")


def _print_ablations(pattern):
    """Print the rows whose names match, as Markdown, and their notes."""
    names = list_ablations(pattern) or list_ablations(f"{pattern.rstrip('/')}/*")
    tables = ", ".join(sorted({name.rpartition("/")[0] for name in ABLATIONS}))
    _check_found(names, "No ablation has", f"the papers' tables are {tables}", pattern)
    rows = [ABLATIONS[name] for name in names]
    notes = _distinct_notes(rows)
    cells = (
        (
            f"`{row.name}`",
            f"`{row.architecture}`",
            ", ".join(f"{k}={v!r}" for k, v in row.arguments.items()) or "as it is",
            row.top1,
            row.parameters,
            f"{row.counted[0] / 1e6:.2f}",
            row.macs,
            f"{row.counted[1] / 1e9:.3f}",
            _numbers(row, notes),
        )
        for row in rows
    )
    header = ("ablation", "of", "arguments", "top-1", "parameters (M)", "here")
    _print_table((*header, "multiply-adds (G)", "here", "note"), cells)
    _print_notes(notes)
    print(
        f"\n`kmlp.create_model({names[0]!r})` builds one, `python "
        f"training/train.py --arch {names[0]}` trains it. Figures of the papers "
        "stand before ours (here)."
    )


def _print_table(header, rows):
    print(table(header, rows, "markdown", left=len(header)))


def _distinct_notes(rows):
    return list(dict.fromkeys(note for row in rows if row for note in row.notes))


def _numbers(row, notes):
    """Return the numbers of a row's notes, from 1."""
    return ", ".join(map(str, sorted(notes.index(note) + 1 for note in row.notes)))


def _print_notes(notes):
    if notes:
        print()
    for number, note in enumerate(notes, 1):
        print(f"{number}. {note}")


def count(names: Sequence[str]) -> "list[Cost]":
    """Count what architectures cost, with a bar while it lasts.

    Args:
        names: Names of `kmlp.list_models()` or `kmlp.list_ablations()`.
    """
    from kmlp.analysis.efficiency import costs

    counted = []
    with progress_bar(len(names), "network") as bar:
        for one in costs(names):
            counted.append(one)
            bar.update()
    return counted


def _print_costs(names, form):
    """Count architectures and print a row for each in a form of `FORMS`."""
    costs = count(names)
    if form == "csv":
        rows = (
            [
                value(cost) if cost.reported or column in _COUNTED else ""
                for column, value in _RAW.items()
            ]
            for cost in costs
        )
        print(table(list(_RAW), rows, form))
        return
    notes = _distinct_notes(cost.reported for cost in costs)
    rows = [_row(cost, notes, form) for cost in costs]
    print(table(list(rows[0]), [list(row.values()) for row in rows], form))
    print(
        "\nParameters and multiply-adds are counted here, in the train form; what the "
        "paper has is in brackets. Top-1 is the paper's, on ImageNet-1k where nothing "
        "else is said, divided by what is counted here, in brackets by the paper's."
    )
    _print_notes(notes)


def _row(cost, notes, form):
    """Return `{title: cell}` of a `Cost`, with the paper's figures in brackets."""
    row, ours, theirs = cost.reported, cost.efficiency, cost.reported_efficiency
    cells = {
        "architecture": f"`{cost.name}`" if form == "markdown" else cost.name,
        "image size": "x".join(map(str, cost.image_size)),
        "parameters (M)": f"{cost.parameters / 1e6:.2f}",
        "multiply-adds (G)": f"{cost.macs / 1e9:.2f}",
        "activations (M)": f"{cost.activations / 1e6:.1f}",
        "top-1 (%)": "",
        "per GMAC": "",
        "per M parameters": "",
        "reported in": "",
        "note": "",
    }
    if row is None:
        return cells
    return cells | {
        "parameters (M)": f"{cells['parameters (M)']} ({row.parameters})",
        "multiply-adds (G)": f"{cells['multiply-adds (G)']} ({row.macs})",
        "top-1 (%)": row.top1,
        "per GMAC": f"{ours.per_gmac:.1f} ({theirs.per_gmac:.1f})",
        "per M parameters": f"{ours.per_mparam:.1f} ({theirs.per_mparam:.1f})",
        "reported in": row.source + f" ({row.data})" * (row.data != "ImageNet-1k"),
        "note": _numbers(row, notes),
    }


# Columns of the CSV that networks of no paper have, too.
_COUNTED = (
    "architecture", "height", "width", "parameters", "multiply_adds", "activations",
)  # fmt: skip
# Column of the CSV -> value of a `Cost`.
_RAW: dict[str, Any] = {
    "architecture": lambda cost: cost.name,
    "height": lambda cost: cost.image_size[0],
    "width": lambda cost: cost.image_size[1],
    "parameters": lambda cost: cost.parameters,
    "reported_parameters_millions": lambda cost: cost.reported.parameters,
    "multiply_adds": lambda cost: cost.macs,
    "reported_multiply_adds_billions": lambda cost: cost.reported.macs,
    "activations": lambda cost: cost.activations,
    "top1_percent": lambda cost: cost.reported.top1,
    "top1_data": lambda cost: cost.reported.data,
    "top1_per_gmac": lambda cost: f"{cost.efficiency.per_gmac:.4f}",
    "reported_top1_per_gmac": lambda cost: f"{cost.reported_efficiency.per_gmac:.4f}",
    "top1_per_million_parameters": lambda cost: f"{cost.efficiency.per_mparam:.4f}",
    "reported_top1_per_million_parameters": lambda cost: (
        f"{cost.reported_efficiency.per_mparam:.4f}"
    ),
    "reported_in": lambda cost: cost.reported.source,
    "training": lambda cost: cost.reported.training,
    "differs": lambda cost: " ".join(cost.reported.differs),
    "note": lambda cost: " ".join(cost.reported.notes),
}


def _print_weights(pattern):
    from kmlp.weights import catalogue

    names = catalogue.list_weights(pattern)
    without = catalogue.list_unpublished(pattern)
    if not names and without:
        catalogue.published_weights(without[0])  # says what to do instead
    known = "`kmlp list --weights` shows all"
    _check_found(names, "No published weights have", known, pattern)
    _print_table(
        ("weights", "reported (%)", "image size", "preprocessing", "licence", "from"),
        (
            (
                f"`{entry.name}`",
                f"{entry.top1} {entry.metric}",
                entry.image_size,
                f"mean {_slashed(entry.mean)}, deviation {_slashed(entry.std)}, "
                f"crop {entry.test_crop:.3g} {entry.test_interpolation}",
                entry.licence,
                entry.page or ("this package" if entry.packaged else entry.address),
            )
            for entry in map(catalogue.WEIGHTS.__getitem__, names)
        ),
    )
    if without:
        print(
            f"\nNone are listed of {', '.join(without)}: `python training/train.py "
            "--arch NAME` trains by the papers' recipes."
        )


def _slashed(values):
    return "/".join(f"{value:g}" for value in values)
