"""`kmlp plot locality`, `rows` and `sparsity`: what kernels look like."""

import fnmatch
from pathlib import Path

from kmlp.commands.arguments import index, positive, share
from kmlp.commands.plot.plotted import Kind, add_networks, open_networks, write_csv
from kmlp.console import some, table
from kmlp.errors import InputError, nearest

_CENTRAL = 6
_THRESHOLD = 0.05


def _add_locality(parser):
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
    _add_csv(parser)
    _add_list(parser)


def _locality(options):
    """Draw what an output position reads before and after Locality Injection.

    Local branches are merged into the FC kernel (RepMLPNet, Fig. 3); the share of the
    weight that lies where the branches are is printed.
    """
    from kmlp import plots
    from kmlp.analysis import injection

    (model,) = open_networks([options.weights]).values()
    kernels = injection.injected_kernels(model)
    if options.list:
        _print_layers(kernels)
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
    yield plots.locality(pairs)
    for pair in pairs:
        print(
            f"share-set {pair.share_set}: {pair.reaching} positions outside of the "
            "outline weigh more than the least inside"
        )
    measured = injection.locality(model)
    print(f"share of |w| within the branches' kernels:\n{measured}")
    write_csv(options.csv, injection.COLUMNS, measured.rows())


def _add_rows(parser):
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
        default=_CENTRAL,
        metavar="N",
        help=f"the N×N output positions in the middle (default: {_CENTRAL})",
    )
    which.add_argument("--all", action="store_true", help="all output positions")
    _add_list(parser)


def _rows(options):
    """Draw what each output position reads from the map, a panel per layer.

    ResMLP, Figs. 2 and B.1. Local branches are merged into the kernels.
    """
    from kmlp import plots
    from kmlp.analysis.spatial import kernel_rows, spatial_kernels

    (model,) = open_networks([options.weights]).values()
    kernels = spatial_kernels(model)
    if options.list:
        _print_layers(kernels)
        return
    kernels = _with_share_set(
        _chosen(kernels, options.layers, "--layers"), options.share_set
    )
    central = None if options.all else options.central
    yield plots.rows([kernel_rows(k, options.share_set, central) for k in kernels])


def _with_share_set(kernels, share_set):
    """Return the kernels that have a share-set; say which do not."""
    having = [kernel for kernel in kernels if share_set < kernel.share_sets]
    if not having:
        most = max(kernel.share_sets for kernel in kernels)
        raise InputError(
            f"--share-set takes 0 to {most - 1}, as many as these layers have. "
            f"Received: {share_set}"
        )
    if without := [kernel.name for kernel in kernels if kernel not in having]:
        print(f"left out {some(without)}: no share-set {share_set}")
    return having


def _add_sparsity(parser):
    add_networks(parser)
    parser.add_argument(
        "--threshold",
        type=share,
        default=_THRESHOLD,
        metavar="X",
        help=f"share of the largest magnitude (default: {_THRESHOLD}, as the paper's "
        "text; the caption of its Fig. 3 says 0.01)",
    )
    _add_csv(parser)


def _sparsity(options):
    """Draw and print the share of weights below a share of their layer's largest.

    They are of every kind of linear layer (ResMLP, Figs. 3 and B.2).
    """
    if options.threshold == 1:
        raise InputError("--threshold takes a share below 1. Received: 1")
    from kmlp import plots
    from kmlp.analysis.sparsity import COLUMNS, sparsity

    networks = open_networks(list(dict.fromkeys(options.weights)))
    measured = {name: sparsity(m, options.threshold) for name, m in networks.items()}
    yield plots.sparsity(measured)
    below = f"below {100 * options.threshold:g}%"
    totals = [
        (label, row.series, f"{row.size:,}", f"{row.small:.1%}", f"{row.zero:.1%}")
        for label, one in measured.items()
        for row in one.totals()
    ]
    print(table(("network", "kind", "weights", below, "zero"), totals, left=2))
    rows = [(label, *row) for label, one in measured.items() for row in one.rows()]
    write_csv(options.csv, ("network", *COLUMNS), rows)


def _add_csv(parser):
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="the share of every layer"
    )


def _add_list(parser):
    parser.add_argument(
        "--list",
        action="store_true",
        help="print the layers that there are, and draw nothing",
    )


def _print_layers(kernels):
    """Print the layers with their numbers."""
    from kmlp.analysis.injection import times

    rows = [
        (number, kernel.name, f"{kernel.depth:g}", times(kernel.grid))
        + (kernel.share_sets, " ".join(map(times, kernel.branches)) or "none")
        for number, kernel in enumerate(kernels, start=1)
    ]
    header = ("number", "layer", "depth", "grid", "share-sets", "local branches")
    print(table(header, rows, left=2))


def _chosen(kernels, words, flag):
    """Return the kernels that words name, in the model's order.

    Args:
        kernels: Kernels, `SpatialKernel`s.
        words: Names, numbers from 1 or patterns such as `stage2_*`; `None` for all.
        flag: Option that named them.

    Raises:
        InputError: If a word names none.
    """
    if words is None:
        return list(kernels)
    names, found = [kernel.name for kernel in kernels], set()
    for word in words:
        places = {
            place
            for place, name in enumerate(names)
            if (word.isdecimal() and int(word) == place + 1)
            or fnmatch.fnmatchcase(name, word)
            or name.startswith(f"{word}/")
        }
        if not places:
            near = nearest(word, names) or names
            raise InputError(
                f"{flag} takes a layer's name, a pattern of names or a number from 1 "
                f"to {len(names)}, such as {some(near)}; --list prints all. "
                f"Received: {word!r}"
            )
        found |= places
    return [kernel for place, kernel in enumerate(kernels) if place in found]


KINDS = {
    "locality": Kind(
        "an FC kernel before and after Locality Injection", _add_locality, _locality
    ),
    "rows": Kind("rows of all FC kernels over positions, as images", _add_rows, _rows),
    "sparsity": Kind(
        "the share of small weights, by kind of layer and depth",
        _add_sparsity,
        _sparsity,
    ),
}
