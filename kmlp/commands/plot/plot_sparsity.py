"""`kmlp plot sparsity`: the share of small weights, by kind of layer and depth."""

from pathlib import Path

from kmlp.commands.plot.output import (
    add_output,
    check_file,
    check_output,
    write,
    write_csv,
)
from kmlp.commands.plot.plotted_networks import add_networks, open_networks
from kmlp.console import import_quietly, share
from kmlp.errors import InputError
from kmlp.tables import table

THRESHOLD = 0.05


def add(kinds):
    """Adds the subparser."""
    command = kinds.add_parser(
        "sparsity",
        help="the share of small weights, by kind of layer and depth",
        description="Draws and prints the share of weights below a share of their "
        "layer's largest, for every kind of linear layer (ResMLP, Figs. 3 and B.2).",
    )
    add_networks(command)
    add = command.add_argument
    add(
        "--threshold",
        type=share,
        default=THRESHOLD,
        metavar="X",
        help=f"share of the largest magnitude (default: {THRESHOLD}, as the paper's "
        "text; the caption of its Fig. 3 says 0.01)",
    )
    add("--csv", type=Path, metavar="FILE", help="the share of every layer")
    add_output(command, "sparsity")
    command.set_defaults(job=run)


def run(options):
    """Draws the shares, and prints them by kind."""
    check_output(options)
    check_file(options.csv, "--csv")
    if options.threshold == 1:
        raise InputError("--threshold takes a share below 1. Received: 1")
    import_quietly()
    from kmlp import plots
    from kmlp.analysis.sparsity import COLUMNS, sparsity

    networks = open_networks(list(dict.fromkeys(options.weights)))
    measured = {n.label: sparsity(n.model, options.threshold) for n in networks}
    write(plots.sparsity(measured), options)
    print(_summary(measured, options.threshold))
    rows = [(label, *row) for label, one in measured.items() for row in one.rows()]
    write_csv(options.csv, ("network", *COLUMNS), rows)


def _summary(measured, threshold):
    header = ("network", "kind", "weights", f"below {100 * threshold:g}%", "zero")
    rows = [
        (label, row.series, f"{row.size:,}", f"{row.small:.1%}", f"{row.zero:.1%}")
        for label, one in measured.items()
        for row in one.totals()
    ]
    return table(header, rows, left=2)
