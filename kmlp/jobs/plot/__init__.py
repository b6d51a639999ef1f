"""`kmlp plot`: what networks learned and cost, as pictures."""

from kmlp.jobs.plot import (
    benchmark,
    costs,
    features,
    locality,
    rows,
    run,
    saliency,
    sparsity,
)

KINDS = (locality, rows, sparsity, saliency, features, costs, benchmark, run)


def add(commands):
    """Adds the subparser, and one for each kind of plot."""
    command = commands.add_parser(
        "plot",
        help="what networks learned and cost, as pictures",
        description="Draws kernels, sparsity, saliency, features, costs, speed and "
        "training curves, and writes them as PNG, SVG or PDF.",
    )
    kinds = command.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind in KINDS:
        kind.add(kinds)
