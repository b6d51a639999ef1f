"""`kmlp plot locality`, `rows` and `sparsity`: what kernels look like."""

import difflib
import fnmatch
from pathlib import Path

from kmlp.commands.arguments import Parser, check_file, index, positive, share
from kmlp.commands.plot.plotted import (
    add_networks,
    add_output,
    check_output,
    open_networks,
    write,
    write_csv,
)
from kmlp.console import import_quietly, some, table
from kmlp.errors import InputError

CENTRAL = 6
THRESHOLD = 0.05
# How alike a name is that is meant instead of an unknown one.
_ALIKE = 0.4


def add_locality(parser: Parser) -> None:
    """Add the arguments of `kmlp plot locality` and the job."""
    parser.description = (
        "Draws what one output position reads before and after the local "
        "branches are merged into the FC kernel (RepMLPNet, Fig. 3), and prints the "
        "share of the weight that lies where the branches are."
    )
    add_networks(parser, several=False)
    add = parser.add_argument
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
    _add_list(parser)
    add_output(parser, "locality")
    parser.set_defaults(job=_locality)


def _locality(options):
    check_output(options)
    check_file(options.csv, "--csv")
    import_quietly()
    from kmlp.analysis import injection
    from kmlp.plots.locality_matrices import locality

    (network,) = open_networks([options.weights])
    kernels = injection.injected_kernels(network.model)
    if options.list:
        print(_listing(kernels))
        return
    if options.layer is None:
        kernel = injection.default_kernel(kernels)
    else:
        kernel, *others = _chosen(kernels, [options.layer], "--layer")
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
    write(locality(pairs), options)
    for pair in pairs:
        print(
            f"share-set {pair.share_set}: {pair.reaching} positions outside of the "
            "outline weigh more than the least inside"
        )
    measured = injection.locality(network.model)
    print(f"share of |w| within the branches' kernels:\n{measured}")
    write_csv(options.csv, injection.COLUMNS, measured.rows())


def add_rows(parser: Parser) -> None:
    """Add the arguments of `kmlp plot rows` and the job."""
    parser.description = (
        "Draws what each output position reads from the map, a panel per "
        "layer (ResMLP, Figs. 2 and B.1). Local branches are merged into the kernels."
    )
    add_networks(parser, several=False)
    add = parser.add_argument
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
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--central",
        type=positive,
        default=CENTRAL,
        metavar="N",
        help=f"the N×N output positions in the middle (default: {CENTRAL})",
    )
    which.add_argument("--all", action="store_true", help="all output positions")
    _add_list(parser)
    add_output(parser, "rows")
    parser.set_defaults(job=_rows)


def _rows(options):
    check_output(options)
    import_quietly()
    from kmlp.analysis.spatial import kernel_rows, spatial_kernels
    from kmlp.plots.kernel_rows import rows

    (network,) = open_networks([options.weights])
    kernels = spatial_kernels(network.model)
    if options.list:
        print(_listing(kernels))
        return
    kernels = _with_share_set(
        _chosen(kernels, options.layers, "--layers"), options.share_set
    )
    central = None if options.all else options.central
    images = [kernel_rows(kernel, options.share_set, central) for kernel in kernels]
    write(rows(images), options)


def _with_share_set(kernels, share_set):
    """Return the kernels that have a share-set; say which do not."""
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


def add_sparsity(parser: Parser) -> None:
    """Add the arguments of `kmlp plot sparsity` and the job."""
    parser.description = (
        "Draws and prints the share of weights below a share of their "
        "layer's largest, for every kind of linear layer (ResMLP, Figs. 3 and B.2)."
    )
    add_networks(parser)
    add = parser.add_argument
    add(
        "--threshold",
        type=share,
        default=THRESHOLD,
        metavar="X",
        help=f"share of the largest magnitude (default: {THRESHOLD}, as the paper's "
        "text; the caption of its Fig. 3 says 0.01)",
    )
    add("--csv", type=Path, metavar="FILE", help="the share of every layer")
    add_output(parser, "sparsity")
    parser.set_defaults(job=_sparsity)


def _sparsity(options):
    check_output(options)
    check_file(options.csv, "--csv")
    if options.threshold == 1:
        raise InputError("--threshold takes a share below 1. Received: 1")
    import_quietly()
    from kmlp.analysis.sparsity import COLUMNS, sparsity
    from kmlp.plots.sparsity_bars import sparsity as drawn

    networks = open_networks(list(dict.fromkeys(options.weights)))
    measured = {n.label: sparsity(n.model, options.threshold) for n in networks}
    write(drawn(measured), options)
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


def _add_list(command):
    """Add `--list`."""
    command.add_argument(
        "--list",
        action="store_true",
        help="print the layers that there are, and draw nothing",
    )


def _listing(kernels):
    """Return the layers with their numbers, as text."""
    from kmlp.analysis.injection import times

    rows = [
        (number, kernel.name, f"{kernel.depth:g}", times(kernel.grid))
        + (kernel.share_sets, " ".join(map(times, kernel.branches)) or "none")
        for number, kernel in enumerate(kernels, start=1)
    ]
    header = ("number", "layer", "depth", "grid", "share-sets", "local branches")
    return table(header, rows, left=2)


def _chosen(kernels, words, flag):
    """Return the kernels that words name, in the model's order.

    Args:
        kernels: `SpatialKernel`s.
        words: Names, numbers from 1 or patterns such as `stage2_*`; `None` for all.
        flag: Option that named them.

    Raises:
        InputError: If a word names none.
    """
    if words is None:
        return list(kernels)
    found = set()
    for word in words:
        places = _places(kernels, word)
        if not places:
            raise InputError(_unknown(kernels, word, flag))
        found |= places
    return [kernel for place, kernel in enumerate(kernels) if place in found]


def _places(kernels, word):
    if word.isdecimal():
        return {int(word) - 1} & set(range(len(kernels)))
    return {
        place
        for place, kernel in enumerate(kernels)
        if fnmatch.fnmatchcase(kernel.name, word) or kernel.name.startswith(f"{word}/")
    }


def _unknown(kernels, word, flag):
    names = [kernel.name for kernel in kernels]
    near = difflib.get_close_matches(word, names, cutoff=_ALIKE) or names
    return (
        f"{flag} takes a layer's name, a pattern of names or a number from 1 to "
        f"{len(names)}, such as {some(near)}; --list prints all. Received: {word!r}"
    )
