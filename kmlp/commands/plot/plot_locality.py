"""`kmlp plot locality`: FC kernels before and after Locality Injection."""

from pathlib import Path

from kmlp.commands.plot.output import (
    add_output,
    check_file,
    check_output,
    write,
    write_csv,
)
from kmlp.commands.plot.plotted_networks import add_networks, open_networks
from kmlp.commands.plot.printed_kernels import add_list, chosen, index, listing
from kmlp.console import import_quietly, some
from kmlp.errors import InputError


def add(kinds):
    """Adds the subparser."""
    command = kinds.add_parser(
        "locality",
        help="an FC kernel before and after Locality Injection",
        description="Draws what one output position reads before and after the local "
        "branches are merged into the FC kernel (RepMLPNet, Fig. 3), and prints the "
        "share of the weight that lies where the branches are.",
    )
    add_networks(command, several=False)
    add = command.add_argument
    add(
        "--layer",
        metavar="NAME|N",
        help="a layer's name or number (default: the paper's, the tenth block of the "
        "third stage, or the last there is)",
    )
    add(
        "--share-set",
        dest="share_sets",
        nargs="+",
        type=index,
        default=[0],
        metavar="S",
        help="a row each (default: 0)",
    )
    add(
        "--position",
        nargs=2,
        type=index,
        metavar=("ROW", "COLUMN"),
        help="of the output, from 0 (default: 6 6, or the middle of a small map)",
    )
    add("--csv", type=Path, metavar="FILE", help="the share of every layer")
    add_list(command)
    add_output(command, "locality")
    command.set_defaults(job=run)


def run(options):
    """Draws the kernels, and prints where their weight lies."""
    check_output(options)
    check_file(options.csv, "--csv")
    import_quietly()
    from kmlp import plots
    from kmlp.analysis import injection
    from kmlp.analysis.injection import COLUMNS, locality

    (network,) = open_networks([options.weights])
    kernels = injection.injected_kernels(network.model)
    if options.list:
        print(listing(kernels))
        return
    if options.layer is None:
        kernel = injection.default_kernel(kernels)
    else:
        kernel, *others = chosen(kernels, [options.layer], "--layer")
        if others:
            raise InputError(
                f"--layer takes one layer, and {len(others) + 1} are so named: "
                f"{some(one.name for one in (kernel, *others))}. "
                f"Received: {options.layer!r}"
            )
    position = options.position or injection.default_position(kernel.grid)
    injected = injection.Injection(kernel)
    pairs = [injected.at(share_set, position) for share_set in options.share_sets]
    if options.layer is None:
        print(f"layer    {kernel.name} (--layer takes another, --list prints all)")
    write(plots.locality(pairs), options)
    for pair in pairs:
        print(
            f"share-set {pair.share_set}: {pair.reaching} positions outside of the "
            "outline weigh more than the least inside"
        )
    measured = locality(network.model)
    print(f"share of |w| within the branches' kernels:\n{measured}")
    write_csv(options.csv, COLUMNS, measured.rows())
