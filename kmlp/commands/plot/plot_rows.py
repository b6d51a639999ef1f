"""`kmlp plot rows`: rows of all FC kernels over positions, as images."""

from kmlp.commands.plot.output import add_output, check_output, write
from kmlp.commands.plot.plotted_networks import add_networks, open_networks
from kmlp.commands.plot.printed_kernels import add_list, chosen, index, listing
from kmlp.console import import_quietly, positive, some
from kmlp.errors import InputError

CENTRAL = 6


def add(kinds):
    """Adds the subparser."""
    command = kinds.add_parser(
        "rows",
        help="rows of all FC kernels over positions, as images",
        description="Draws what each output position reads from the map, a panel per "
        "layer (ResMLP, Figs. 2 and B.1). Local branches are merged into the kernels.",
    )
    add_networks(command, several=False)
    add = command.add_argument
    add(
        "--layers",
        nargs="+",
        metavar="NAME|N",
        help="names, numbers or patterns such as 'stage2_*' (default: all)",
    )
    add(
        "--share-set",
        type=index,
        default=0,
        metavar="S",
        help="of which the rows are (default: 0)",
    )
    which = command.add_mutually_exclusive_group()
    which.add_argument(
        "--central",
        type=positive,
        default=CENTRAL,
        metavar="N",
        help=f"the N×N output positions in the middle (default: {CENTRAL})",
    )
    which.add_argument("--all", action="store_true", help="all output positions")
    add_list(command)
    add_output(command, "rows")
    command.set_defaults(job=run)


def run(options):
    """Draws the rows."""
    check_output(options)
    import_quietly()
    from kmlp import plots
    from kmlp.analysis.spatial import kernel_rows, spatial_kernels

    (network,) = open_networks([options.weights])
    kernels = spatial_kernels(network.model)
    if options.list:
        print(listing(kernels))
        return
    kernels = _with_share_set(
        chosen(kernels, options.layers, "--layers"), options.share_set
    )
    central = None if options.all else options.central
    images = [kernel_rows(kernel, options.share_set, central) for kernel in kernels]
    write(plots.rows(images), options)


def _with_share_set(kernels, share_set):
    """The kernels that have a share-set; says which do not."""
    having = [kernel for kernel in kernels if share_set < kernel.share_sets]
    if not having:
        most = max(kernel.share_sets for kernel in kernels)
        raise InputError(
            f"--share-set takes 0 to {most - 1}, as many as these layers have. "
            f"Received: {share_set}"
        )
    without = [kernel.name for kernel in kernels if share_set >= kernel.share_sets]
    if without:
        print(f"left out {some(without)}: no share-set {share_set}")
    return having
