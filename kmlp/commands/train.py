"""Trains an architecture on images, merges it, exports it and reports.

    {call} --arch convmlp_s
    {call} --weights saved_models/convmlp_s --data flowers

The first trains on scikit-learn's handwritten digits in a few minutes on a laptop; with
--data the architecture's published recipe is used, on one device, several, or several
hosts. The second fine-tunes what a run has learned, on other images. A run that was
stopped, however, goes on with the same command. The result lies in
saved_models/ARCH/VERSION: a SavedModel with model.tflite, trained.keras, the best
weights, history.csv, recipe.json and report.json.

    {call} --study repmlpnet/table4 --data cifar100 --minutes 10

This trains the rows of a paper's table one after the other and prints the paper's
figures beside ours; it is given again until all rows are there. A study needs
TensorFlow only where that is Keras' backend.
"""

import functools

from kmlp.commands.arguments import (
    Parser,
    add_reading,
    add_resolution,
    image_size,
    minutes,
    positive,
    sizes,
)
from kmlp.commands.main import Script
from kmlp.commands.train_dense import add_detecting, add_segmenting
from kmlp.commands.training_arguments import add_training, run_or_return
from kmlp.console import import_quietly

STUDY = """\
Trains the rows of a paper's table of ablations one after the other, under one recipe
and seed, and prints the paper's figures beside ours.

    {call} list
    {call} repmlpnet/table4 --data cifar100 --minutes 10

It is given again until all rows are there. A study needs TensorFlow only where that is
Keras' backend.
"""


def add_command(parser: Parser) -> None:
    """Add the arguments of `kmlp train --task TASK` and the job."""
    tasks = {
        "classify": add_arguments,
        "detect": add_detecting,
        "segment": add_segmenting,
    }
    first = Parser(prog=parser.prog, add_help=False)
    for each in (first, parser):
        each.add_argument(
            "--task",
            choices=tuple(tasks),
            default="classify",
            help="what the network does, on which its other options depend "
            "(default: classify)",
        )
    tasks[first.parse_known_args(parser.words)[0].task](parser)


def add_arguments(parser: Parser) -> None:
    """Add the arguments of `train.py` and the job."""
    _add(parser, __doc__)
    group = parser.add_argument_group("a study, in place of --arch")
    group.add_argument(
        "--study",
        metavar="PAPER/TABLE",
        help="train all rows of a table of ablations under one recipe and seed, such "
        "as repmlpnet/table4; list shows the tables",
    )
    _add_study_options(group)


def add_study(parser: Parser) -> None:
    """Add the arguments of `kmlp study` and the job: those of `kmlp train --study`."""
    parser.add_argument(
        "study", metavar="PAPER/TABLE", help="such as repmlpnet/table4; list shows all"
    )
    _add(parser, STUDY)
    _add_study_options(parser.add_argument_group("the study"))


def _add(parser, description):
    """Add a description, the job, and what training and studies share."""
    parser.describe(description)
    _add_what(parser.add_argument_group("what to train"))
    group = add_training(
        parser,
        _run,
        recipe="the one that goes with --arch; with --weights the data's fine-tuning, "
        "or finetune, or small_images for networks that see such",
        recipes="the recipes and end",
        fields="mixup=0 drop_path=0.2",
        rate_note=", not scaled further",
    )
    add = group.add_argument
    add(
        "--image-size",
        type=image_size,
        metavar="PIXELS",
        help="height and width that the model sees",
    )
    add(
        "--local-kernels",
        type=sizes,
        metavar="K,K",
        help="kernel sizes of local branches, such as 1,3, or none, where a family "
        "has them",
    )
    add(
        "--teacher",
        metavar="FILE|NAME",
        help="distil from a .keras file, a SavedModel or a keras.applications name",
    )
    parser.check = functools.partial(_check, parser)


SCRIPT = Script("train.py", add_arguments)
main, parse = SCRIPT.main, SCRIPT.parse


def _run(options):
    if options.recipes:
        from kmlp.recipes.choosing import table

        print(table())
        return
    import_quietly(settle=False, needed=not options.study)
    if options.study:
        from kmlp.training.studies.study_run import run

        run(options)
        return
    from kmlp.training.tasks import classification

    run_or_return(options, classification)


def _check(parser, options):
    """Refuse options that do not go together."""

    def _given(name):
        return getattr(options, name) != parser.get_default(name)

    def _refuse(names, words):
        for name in filter(_given, names.split()):
            parser.error(f"--{name.replace('_', '-')} {words}")

    if options.study is not None:
        _refuse(_NOT_OF_A_STUDY, "does not go with --study")
        if options.throughput:
            _refuse("minutes", "does not go with --throughput")
        return
    _refuse("scale minutes throughput", "goes with --study")
    if not (options.recipes or options.arch or options.weights):
        parser.error("the following arguments are required: --arch or --weights")
    if not (options.weights or "." in (options.arch or "")):
        _refuse("resolution freeze", "goes with --weights")


def _add_what(group):
    add = group.add_argument
    add(
        "--arch",
        metavar="NAME[.TAG]",
        help="architecture by name, such as convmlp_s (default: that of --weights)",
    )
    add(
        "--weights",
        metavar="FILE|FOLDER|TAG",
        help="where training begins: a published .pth, .safetensors or .npz file, a "
        ".keras file, a run's folder, or a tag of --arch such as default; classes "
        "that are not theirs get a new head",
    )
    add_resolution(group, "the weights' spatial kernels")
    add(
        "--freeze",
        metavar="N|PART,PART|all",
        help="keep stem and first N stages (blocks of ResMLP) as they are; parts by "
        "name, such as stem,stage0; or all but the classifier",
    )
    add(
        "--data",
        metavar="FOLDER|tfds:NAME|digits",
        help="train/CLASS/* and val/CLASS/* or test/CLASS/*, JPEG or PNG; or a data "
        "set of TensorFlow Datasets (default: that of a fine-tuning recipe, or else "
        "scikit-learn's handwritten digits); a study takes such a folder or an .npz "
        "of uint8 arrays",
    )
    add_reading(group)
    add(
        "--num-classes",
        type=positive,
        metavar="N",
        help="stop where the data have another number of classes",
    )


def _add_study_options(group):
    add = group.add_argument
    add(
        "--scale",
        default="full",
        metavar="full|smoke",
        help="smoke: smaller networks, fewer images and epochs, a rehearsal of "
        "minutes (default: full)",
    )
    add(
        "--minutes",
        type=minutes,
        metavar="X",
        help="end after so long, with exit code 0; the same command goes on",
    )
    add(
        "--throughput",
        action="store_true",
        help="measure all rows' training steps in turns and train nothing; without "
        "--data on random images",
    )


# Options of single runs that a study has no use for.
_NOT_OF_A_STUDY = (
    "arch weights resolution freeze data_dir download num_classes recipe recipes "
    "local_kernels teacher rehearse profile publish compare_images"
)
