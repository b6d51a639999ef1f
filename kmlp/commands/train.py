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
from pathlib import Path

from kmlp.commands.arguments import (
    Parser,
    add_exif,
    add_on_corrupt,
    add_reading,
    add_resolution,
    height_width,
    image_size,
    minutes,
    positive,
    sizes,
)
from kmlp.commands.main import Script
from kmlp.commands.training_arguments import add_training, run_or_return
from kmlp.console import STUDIES, import_quietly
from kmlp.errors import check_known

STUDY = """\
Trains the rows of a paper's table of ablations one after the other, under one recipe,
and prints the paper's figures beside ours.

    {call} list
    {call} repmlpnet/table4 --data cifar100 --minutes 10
    {call} repmlpnet/table4 --data cifar10 --scale cpu --seeds 0,1,2,3,4

It is given again until all rows are there; what is finished is kept in --logs, from
seed to seed. A study needs TensorFlow only where that is Keras' backend.
"""
DEFAULT_ARCH = "convmlp_s"
DETECTION = """\
Trains a detector over any hierarchical backbone, exports it and scores it.

    {call}
    {call} --head retinanet
    {call} --arch msmlp_t --data coco:DIR --weights RUN

The first trains on drawn scenes in a few minutes on a laptop and ends with COCO's AP of
boxes and masks; with --data coco:DIR the recipe of the paper is used. A run that was
stopped, however, goes on with the same command. The result lies in
saved_models/HEAD_ARCH/VERSION: a SavedModel with boxes, scores, classes and masks as
its outputs, trained.keras, pictures of predictions, results.json as COCO takes it,
history.csv, recipe.json and report.json.
"""
SEGMENTATION = """\
Trains a segmenter over any hierarchical backbone, exports it and scores it.

    {call}
    {call} --head upernet
    {call} --arch repmlpnet_d256 --data cityscapes:DIR

The first trains on drawn scenes in a few minutes on a laptop and ends with the mean
IoU; with --data ade20k:DIR or cityscapes:DIR the recipe of the paper is used. A run
that was stopped, however, goes on with the same command. The result lies in
saved_models/HEAD_ARCH/VERSION: a SavedModel and model.tflite of class scores for every
pixel, trained.keras, pictures of predictions, history.csv, recipe.json and report.json.
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


def add_detecting(parser: Parser) -> None:
    """Add the arguments of `train_detector.py` and the job."""
    parser.describe(DETECTION)
    heads = ("retinanet", "mask_rcnn", "cascade_mask_rcnn")
    _add_dense(parser, "detection", heads, ("coco",))


def add_segmenting(parser: Parser) -> None:
    """Add the arguments of `train_segmenter.py` and the job."""
    parser.describe(SEGMENTATION)
    _add_dense(
        parser, "segmentation", ("semantic_fpn", "upernet"), ("ade20k", "cityscapes")
    )


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
DETECTOR = Script("train_detector.py", add_detecting)
SEGMENTER = Script("train_segmenter.py", add_segmenting)
main, parse = SCRIPT.main, SCRIPT.parse


def _run(options):
    if options.recipes:
        from kmlp.recipes.choosing import table

        print(table())
        return
    if options.study is None:
        from kmlp.recipes.choosing import CATALOGUE

        _check_names(options, CATALOGUE)
    else:
        from kmlp.training.studies.study import listed, tables

        if options.study == "list":
            print(listed())
            return
        check_known(options.study, tables(), "study")
    import_quietly(settle=False, needed=not options.study)
    if options.study:
        from kmlp.training.studies.study_run import run

        run(options)
        return
    from kmlp.training.tasks import classification

    run_or_return(options, classification)


def _check_names(options, recipes, kind="recipe"):
    """Refuse unknown names before anything is imported that takes seconds."""
    from kmlp.models.registry import described

    if options.arch:
        described(options.arch.partition(".")[0])
    if options.recipe:
        check_known(options.recipe, recipes, kind)


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
            _refuse("minutes seeds", "does not go with --throughput")
        return
    _refuse("scale minutes throughput seeds rows against logs", "goes with --study")
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
        help="train/CLASS/* and val/CLASS/* or test/CLASS/*; or a data "
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


def _seeds(text):
    """Return the seeds of `0,1,2`."""
    seeds = [int(part) for part in text.split(",")]
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError
    return seeds


def _names(text):
    return tuple(text.split(","))


def _add_study_options(group):
    add = group.add_argument
    add(
        "--scale",
        default="full",
        metavar="full|cpu|smoke",
        help="cpu: smaller networks and fewer epochs, minutes a row on two cores; "
        "smoke: fewer images too, a rehearsal (default: full)",
    )
    add(
        "--seeds",
        type=_seeds,
        metavar="N,N",
        help="train every row from each of these, and print means, 95 %% intervals and "
        "gains seed by seed (default: --seed alone)",
    )
    add("--rows", type=_names, default=(), metavar="NAME,NAME", help="default: all")
    add(
        "--against",
        metavar="NAME",
        help="row from which gains are counted (default: of each architecture the one "
        "without what is studied)",
    )
    add(
        "--logs",
        type=Path,
        default=STUDIES,
        metavar="FOLDER",
        help="of the results of finished rows, from which a study goes on anywhere, "
        "and of its table (default: training/logs/studies in the clone, or studies "
        "here)",
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
    "local_kernels teacher rehearse profile publish compare_images patience dense"
)


def _add_dense(parser, task, heads, data):
    what = parser.add_argument_group("what to train")
    add = what.add_argument
    add(
        "--arch",
        default=DEFAULT_ARCH,
        metavar="NAME",
        help=f"backbone by name (default: {DEFAULT_ARCH})",
    )
    add("--head", choices=heads, help="default: the recipe's")
    add(
        "--weights",
        metavar="FILE|FOLDER|TAG",
        help="with which the backbone begins, as training/train.py takes them "
        "(default: fresh ones)",
    )
    add(
        "--data",
        metavar="|".join(["scenes", *(f"{name}:DIR" for name in data)]),
        help="default: drawn scenes of circles, squares and triangles",
    )
    add_on_corrupt(what, "a picture cannot be read")
    add_exif(what)
    group = add_training(
        parser,
        functools.partial(_run_dense, task),
        recipe="the one of --arch and --data",
        recipes="the recipes and what the papers report, and end",
        fields="flip=0 head_arguments.dropout=0",
        epochs="steps where the recipe counts in steps; milestones keep their share",
    )
    group.add_argument(
        "--image-size",
        type=height_width,
        metavar="HxW",
        help="what the network sees: a detector's canvas, a segmenter's crops",
    )


def _run_dense(task, options):
    options.task = task
    if options.recipes:
        from kmlp.recipes.dense_reported import dense_table

        print(dense_table(task))
        return
    from kmlp.recipes.dense_choosing import dense_recipes

    _check_names(options, dense_recipes(task), f"recipe of {task}")
    import_quietly(settle=False)
    if task == "detection":
        from kmlp.training.tasks import detection as of_task
    else:
        from kmlp.training.tasks import segmentation as of_task
    run_or_return(options, of_task)
