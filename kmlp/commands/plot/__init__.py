"""`kmlp plot`: what networks learned and cost, as pictures."""

from kmlp.commands.arguments import Parser
from kmlp.commands.plot import plot_charts, plot_images, plot_kernels

KINDS = {**plot_kernels.KINDS, **plot_images.KINDS, **plot_charts.KINDS}


def add_arguments(parser: Parser) -> None:
    """Add a parser for each kind of plot."""
    parser.description = (
        "Draws kernels, sparsity, saliency, features, costs, speed and training "
        "curves, and writes them as PNG, SVG or PDF."
    )
    kinds = parser.add_subparsers(
        dest="kind", required=True, metavar="KIND", parser_class=Parser
    )
    for name, kind in KINDS.items():
        kind.add_arguments(kinds.add_parser(name, help=kind.help), name)
