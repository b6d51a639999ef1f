"""`kmlp plot costs`: what networks reach for what they cost."""

from pathlib import Path

from kmlp.commands.listing import count
from kmlp.commands.plot.output import add_output, check_output, write
from kmlp.console import import_quietly
from kmlp.errors import InputError

X = ("parameters", "macs", "activations")
Y = ("top1", "per_gmac", "per_mparam")
IMAGENET = "ImageNet-1k"


def add(kinds):
    """Adds the subparser."""
    command = kinds.add_parser(
        "costs",
        help="accuracy against what it costs, of all architectures and own runs",
        description="Draws the papers' top-1 against parameters, multiply-adds or "
        "activations as they are counted here, a series for each family.",
    )
    add = command.add_argument
    add(
        "patterns",
        nargs="*",
        metavar="PATTERN",
        help="such as 'convmlp_*', or 'convmlp/table2/*' of ablations; default: all "
        f"architectures with a top-1 on {IMAGENET}, none where --run is given",
    )
    add(
        "--run",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="of finished runs, drawn too",
    )
    add("--x", choices=X, default=X[0], help=f"default: {X[0]}")
    add(
        "--y",
        choices=Y,
        default=Y[0],
        help=f"top-1, or divided by multiply-adds or parameters (default: {Y[0]})",
    )
    add_output(command, "costs")
    command.set_defaults(job=run)


def run(options):
    """Counts the networks and draws them."""
    check_output(options)
    import_quietly()
    from kmlp import plots
    from kmlp.artifacts.reached import read_cost

    names = _names(options)
    runs = [read_cost(folder, options.x == "activations") for folder in options.run]
    rows = count(names)
    without = [row.name for row in rows if row.top1 is None]
    write(plots.costs(rows, runs=runs, x=options.x, y=options.y), options)
    if without:
        print(f"left out, as the papers print no top-1: {', '.join(without)}")


def _names(options):
    """The networks that patterns name, each once."""
    from kmlp.models.ablations import list_ablations
    from kmlp.models.registry import list_models
    from kmlp.models.reported import reported

    if not options.patterns:
        everything = [] if options.run else list_models()
        return [name for name in everything if reported(name).data == IMAGENET]
    found = {}
    for pattern in options.patterns:
        names = list_ablations(pattern) if "/" in pattern else list_models(pattern)
        if not names:
            raise InputError(
                "No architecture or ablation has such a name; `kmlp list` and `kmlp "
                f"list --ablations '*'` show all. Received: {pattern!r}"
            )
        found |= dict.fromkeys(names)
    return list(found)
