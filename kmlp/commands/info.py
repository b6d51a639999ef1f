"""`kmlp info`: what an architecture costs, and where an artifact comes from."""

import json
import os

from kmlp.commands.arguments import add_architecture, add_settings, model_arguments
from kmlp.console import positive
from kmlp.errors import InputError
from kmlp.quiet import quiet
from kmlp.tables import add_format

_OF_ARCHITECTURES = (
    "num_classes",
    "image_size",
    "set",
    "merged",
    "layers",
    "batch",
    "precision",
    "format",
)
PRECISIONS = ("float32", "float16", "bfloat16")


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser(
        "info",
        help="costs of an architecture, origin of an artifact",
        description="Of an architecture: parameters, multiply-adds, activations (what "
        "matrix products and convolutions put out for one image) and memory in "
        "inference, of the train form and the merged form, in all and by stage. Of a "
        "file or folder: where it comes from.",
    )
    command.add_argument(
        "name",
        metavar="NAME|FILE",
        help="see `kmlp list` and `kmlp list --ablations`; or a .keras or .tflite "
        "file, or a folder",
    )
    add_architecture(command)
    add_settings(command)
    command.add_argument(
        "--merged", action="store_true", help="the inference form alone"
    )
    command.add_argument(
        "--layers", action="store_true", help="a row per layer instead of per stage"
    )
    command.add_argument(
        "--batch",
        type=positive,
        metavar="N",
        help="images that memory is counted for (default: 1)",
    )
    command.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of weights and activations (default: float32)",
    )
    add_format(command, default=None)
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
    if os.path.exists(name) or name.endswith((".keras", ".tflite")):
        return True
    if "/" not in name:
        return os.sep in name
    from kmlp.models.ablations import ABLATIONS

    # Rows of the papers' tables are named so too.
    papers = {row.partition("/")[0] for row in ABLATIONS}
    return name.partition("/")[0] not in papers


def _architecture(options):
    if options.json:
        raise InputError(
            "--json goes with a file, whose origin it prints. "
            f"Received: the architecture {options.name!r}"
        )
    arguments = {**model_arguments(options), **dict(options.set)}
    if options.precision:
        arguments["dtype"] = options.precision
    batch = options.batch or 1
    with quiet():  # the backend looks for devices
        from kmlp.commands import needs

        size, forms = needs.count(
            options.name, arguments, batch=batch, merged_only=options.merged
        )
    if options.format == "csv":
        print(needs.raw(forms, options.layers))
        return
    form = options.format or "text"
    images = f"memory for {batch} image{'s' * (batch > 1)}"
    print(f"{options.name} at {size}, {options.precision or 'float32'}, {images}\n")
    print(needs.totals(forms, form))
    print()
    print(needs.parts(forms, options.layers, form))


def _artifact(options):
    from kmlp.artifacts import origin
    from kmlp.artifacts.locating import KERAS, locate
    from kmlp.artifacts.origin_text import describe

    for name in _OF_ARCHITECTURES:
        if getattr(options, name):
            flag = "--" + name.replace("_", "-")
            raise InputError(
                f"{flag} goes with the name of an architecture. "
                f"Received: the artifact {options.name!r}"
            )
    path, form = locate(options.name)
    found = origin.read(path)
    if found is None and form == KERAS:
        found = _opened(path)
    if options.json:
        if found is None:
            raise InputError(
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
