"""`kmlp train --task detect` and `--task segment`, and their scripts."""

import functools
from collections.abc import Sequence

from kmlp.commands.arguments import Parser, add_on_corrupt, height_width
from kmlp.commands.main import Script
from kmlp.commands.training_arguments import add_training, run_or_return
from kmlp.console import import_quietly

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


def add_detecting(parser: Parser) -> None:
    """Add the arguments of `train_detector.py` and the job."""
    parser.describe(DETECTION)
    heads = ("retinanet", "mask_rcnn", "cascade_mask_rcnn")
    _add(parser, "detection", heads, ("coco",))


def add_segmenting(parser: Parser) -> None:
    """Add the arguments of `train_segmenter.py` and the job."""
    parser.describe(SEGMENTATION)
    _add(parser, "segmentation", ("semantic_fpn", "upernet"), ("ade20k", "cityscapes"))


DETECTOR = Script("train_detector.py", add_detecting)
SEGMENTER = Script("train_segmenter.py", add_segmenting)


def _add(parser: Parser, task: str, heads: Sequence[str], data: Sequence[str]) -> None:
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
    group = add_training(
        parser,
        functools.partial(_run, task),
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


def _run(task, options):
    options.task = task
    if options.recipes:
        from kmlp.recipes.dense_reported import dense_table

        print(dense_table(task))
        return
    import_quietly(settle=False)
    if task == "detection":
        from kmlp.training.tasks import detection as of_task
    else:
        from kmlp.training.tasks import segmentation as of_task
    run_or_return(options, of_task)
