"""`kmlp plot`: what networks learned and cost, as pictures."""

from kmlp.commands.arguments import Parser
from kmlp.commands.plot import plot_charts, plot_features, plot_kernels, plot_saliency

# What adds a kind's arguments, and its line of help.
KINDS = {
    "locality": (
        plot_kernels.add_locality,
        "an FC kernel before and after Locality Injection",
    ),
    "rows": (
        plot_kernels.add_rows,
        "rows of all FC kernels over positions, as images",
    ),
    "sparsity": (
        plot_kernels.add_sparsity,
        "the share of small weights, by kind of layer and depth",
    ),
    "saliency": (
        plot_saliency.add_saliency,
        "which pixels of images a class hangs on",
    ),
    "features": (plot_features.add_features, "feature maps of each stage"),
    "costs": (
        plot_charts.add_costs,
        "accuracy against what it costs, of all architectures and own runs",
    ),
    "benchmark": (
        plot_charts.add_benchmark,
        "images per second of what was measured",
    ),
    "run": (plot_charts.add_run, "training curves of runs over one another"),
}


def add_arguments(parser: Parser) -> None:
    """Add a parser for each kind of plot."""
    parser.description = (
        "Draws kernels, sparsity, saliency, features, costs, speed and training "
        "curves, and writes them as PNG, SVG or PDF."
    )
    kinds = parser.add_subparsers(
        dest="kind", required=True, metavar="KIND", parser_class=Parser
    )
    for kind, (add, words) in KINDS.items():
        add(kinds.add_parser(kind, help=words))
