"""`kmlp info`: what an architecture costs, and where an artifact comes from."""

import json
import os

from kmlp.jobs.naming import add_architecture, model_arguments
from kmlp.quiet import quiet


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser(
        "info", help="costs of an architecture, origin of an artifact"
    )
    command.add_argument(
        "name",
        metavar="NAME|FILE",
        help="see `kmlp list`; or a .keras or .tflite file, or a folder",
    )
    add_architecture(command)
    command.add_argument("--merged", action="store_true", help="the inference form")
    command.add_argument("--layers", action="store_true", help="a line per layer")
    command.add_argument(
        "--json", action="store_true", help="all that a file says of its origin"
    )
    command.set_defaults(job=run)


def run(options):
    """Prints the costs, or the origin."""
    if _is_path(options.name):
        _artifact(options)
    else:
        _architecture(options)


def _is_path(name):
    looks = os.sep in name or name.endswith((".keras", ".tflite"))
    return looks or os.path.exists(name)


def _architecture(options):
    import kmlp

    if options.json:
        raise ValueError(
            "--json goes with a file, whose origin it prints. "
            f"Received: the architecture {options.name!r}"
        )
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


def _artifact(options):
    from kmlp.artifacts import origin
    from kmlp.artifacts.description import describe
    from kmlp.artifacts.forms import KERAS, locate

    for name in ("num_classes", "image_size", "merged", "layers"):
        if getattr(options, name):
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag} goes with the name of an architecture. "
                f"Received: the artifact {options.name!r}"
            )
    path, form = locate(options.name)
    found = origin.read(path)
    if found is None and form == KERAS:
        found = _opened(path)
    if options.json:
        if found is None:
            raise ValueError(
                "This artifact says nothing of its origin: it is of another program "
                f"or an earlier version. Received: {str(path)!r}"
            )
        print(json.dumps(found, indent=2))
        return
    print(describe(path, form, found))


def _opened(path):
    """What a checkpoint without an origin shows when it is opened."""
    from kmlp.artifacts import origin
    from kmlp.preprocessing import preprocessing_of
    from kmlp.pretrained.loading import load_checkpoint

    model = load_checkpoint(path)
    found = origin.describe(
        model, form=origin.TRAIN_FORM, preprocessing=preprocessing_of(path)
    )
    return found | origin.of_keras(path)
