"""`kmlp plot`: what networks learned and cost, as pictures."""

from kmlp.commands.plot import (
    plot_benchmark,
    plot_costs,
    plot_features,
    plot_locality,
    plot_rows,
    plot_run,
    plot_saliency,
    plot_sparsity,
)

KINDS = (
    plot_locality,
    plot_rows,
    plot_sparsity,
    plot_saliency,
    plot_features,
    plot_costs,
    plot_benchmark,
    plot_run,
)


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
