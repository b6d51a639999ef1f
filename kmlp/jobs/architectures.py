"""`kmlp list`: architectures, ablations and published weights by name."""

from kmlp.console import Stop
from kmlp.jobs.ablations import print_ablations


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser("list", help="architectures and weights by name")
    command.add_argument("pattern", nargs="?", default="*", help="such as 'convmlp_*'")
    shown = command.add_mutually_exclusive_group()
    shown.add_argument(
        "--costs",
        action="store_true",
        help="parameters and multiply-adds beside the names, as Markdown",
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
    command.set_defaults(job=run)


def run(options):
    """Prints the names, with their costs where asked, or the published weights."""
    if options.weights:
        _print_weights(options.pattern)
        return
    if options.ablations:
        print_ablations(options.pattern)
        return
    import kmlp

    names = kmlp.list_models(options.pattern)
    if not names:
        raise Stop(
            "No architecture has such a name; `kmlp list` shows all. "
            f"Received: {options.pattern!r}"
        )
    if options.costs:
        _print_costs(names)
    else:
        print("\n".join(names))


def _print_costs(names):
    import kmlp
    from kmlp.analysis.shapes import shapes_only

    print("| architecture | image size | parameters (M) | multiply-adds (G) |")
    print("|---|---|---|---|")
    for name in names:
        # Costs need shapes only; drawing weights would take most of the time.
        with shapes_only():
            model = kmlp.create_model(name)
        profile = kmlp.profile(model)
        size = "x".join(map(str, model.inputs[0].shape[1:3]))
        print(
            f"| `{name}` | {size} | {profile.trainable / 1e6:.2f} "
            f"| {profile.macs / 1e9:.2f} |",
            flush=True,
        )


def _print_weights(pattern):
    from kmlp.weights import catalogue

    names = catalogue.list_weights(pattern)
    without = catalogue.list_unpublished(pattern)
    if not names and without:
        catalogue.published_weights(without[0])  # says what to do instead
    if not names:
        raise Stop(
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
