"""`kmlp list`: architectures, ablations and published weights by name."""

from kmlp import tables
from kmlp.commands.ablation_table import print_ablations
from kmlp.commands.cost_table import print_costs
from kmlp.errors import InputError


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser("list", help="architectures and weights by name")
    command.add_argument("pattern", nargs="?", default="*", help="such as 'convmlp_*'")
    shown = command.add_mutually_exclusive_group()
    shown.add_argument(
        "--costs",
        action="store_true",
        help="beside the names what they cost and reach, and the papers' figures",
    )
    shown.add_argument(
        "--weights",
        action="store_true",
        help="published weights instead, as Markdown: what they reach, how images are "
        "prepared, licence, where they are from",
    )
    shown.add_argument(
        "--ablations",
        action="store_true",
        help="the papers' tables of ablations instead, as Markdown: arguments, what "
        "was reported, what is counted here; the pattern may be a table, such as "
        "convmlp/table2",
    )
    command.add_argument(
        "--format",
        choices=tables.FORMS,
        help="of --costs (default: markdown); csv has every figure in full",
    )
    command.set_defaults(job=run)


def run(options):
    """Prints the names, with their costs where asked, or the published weights."""
    if options.format and not options.costs:
        raise InputError(
            "--format goes with --costs; names are lines, weights and ablations "
            f"Markdown. Received: --format {options.format}"
        )
    if options.weights:
        _print_weights(options.pattern)
        return
    if options.ablations:
        print_ablations(options.pattern)
        return
    import kmlp

    names = kmlp.list_models(options.pattern)
    if not names:
        raise InputError(
            "No architecture has such a name; `kmlp list` shows all. "
            f"Received: {options.pattern!r}"
        )
    if options.costs:
        print_costs(names, options.format or "markdown")
    else:
        print("\n".join(names))


def _print_weights(pattern):
    from kmlp.weights import catalogue

    names = catalogue.list_weights(pattern)
    without = catalogue.list_unpublished(pattern)
    if not names and without:
        catalogue.published_weights(without[0])  # says what to do instead
    if not names:
        raise InputError(
            "No published weights have such a name; `kmlp list --weights` shows all. "
            f"Received: {pattern!r}"
        )
    print("| weights | reported (%) | image size | preprocessing | licence | from |")
    print("|---|---|---|---|---|---|")
    for entry in map(catalogue.WEIGHTS.get, names):
        mean, std = (
            "/".join(f"{value:g}" for value in values)
            for values in (entry.mean, entry.std)
        )
        print(
            f"| `{entry.name}` | {entry.top1} {entry.metric} | {entry.image_size} "
            f"| mean {mean}, deviation {std}, crop {entry.test_crop:.3g} "
            f"{entry.test_interpolation} | {entry.licence} "
            f"| {entry.page or entry.address} |"
        )
    if without:
        print(
            f"\nNone are listed of {', '.join(without)}: `python training/train.py "
            "--arch NAME` trains by the papers' recipes."
        )
