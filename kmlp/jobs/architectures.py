"""`kmlp list`: architectures by name."""


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser("list", help="architectures by name")
    command.add_argument("pattern", nargs="?", default="*", help="such as 'convmlp_*'")
    command.add_argument(
        "--costs",
        action="store_true",
        help="parameters and multiply-adds beside the names, as Markdown",
    )
    command.set_defaults(job=run)


def run(options):
    """Prints the names, with their costs where asked."""
    import keras

    import kmlp

    names = kmlp.list_models(options.pattern)
    if not names:
        raise ValueError(
            "No architecture has such a name; `kmlp list` shows all. "
            f"Received: {options.pattern!r}"
        )
    if not options.costs:
        print("\n".join(names))
        return
    print("| architecture | image size | parameters (M) | multiply-adds (G) |")
    print("|---|---|---|---|")
    for name in names:
        # Costs need shapes only; drawing weights would take most of the time.
        with keras.StatelessScope():
            model = kmlp.create_model(name)
        profile = kmlp.profile(model)
        size = "x".join(map(str, model.inputs[0].shape[1:3]))
        print(
            f"| `{name}` | {size} | {profile.trainable / 1e6:.2f} "
            f"| {profile.macs / 1e9:.2f} |",
            flush=True,
        )
