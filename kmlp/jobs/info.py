"""`kmlp info`: what an architecture costs, and where an artifact comes from."""

from kmlp.jobs.naming import add_architecture, model_arguments
from kmlp.quiet import quiet


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser("info", help="parameters and multiply-adds")
    command.add_argument("name", help="see `kmlp list`")
    add_architecture(command)
    command.add_argument("--merged", action="store_true", help="the inference form")
    command.add_argument("--layers", action="store_true", help="a line per layer")
    command.set_defaults(job=run)


def run(options):
    """Prints the costs."""
    import kmlp

    with quiet():  # the backend looks for devices
        model = kmlp.create_model(options.name, **model_arguments(options))
    size = "x".join(map(str, model.inputs[0].shape[1:3]))
    if options.merged:
        model = kmlp.merge(model)
    profile = kmlp.profile(model)
    if options.layers:
        print(profile)
        return
    form = "merged" if options.merged else "train form"
    print(
        f"{options.name} at {size}, {form}: "
        f"{profile.trainable:,} trainable and {profile.non_trainable:,} "
        f"non-trainable parameters, {profile.macs / 1e9:.3f} GMACs"
    )
