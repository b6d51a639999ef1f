"""Evaluates a classifier, a detector or a segmenter, in whatever form it is.

    {call} saved_models/convmlp_s/1 --data imagenet/val
    {call} saved_models/retinanet_convmlp_s/1 --data coco:DIR
    {call} RUN --data ade20k:DIR --mode slide --scales 0.5,0.75,1,1.25,1.5,1.75 --flip

WEIGHTS is a run's version folder, a .keras checkpoint, a SavedModel folder or a .tflite
file, which tells what it is. Classifiers are scored by top-1 and top-5; detectors by
COCO's average precision, of boxes and of masks; segmenters by the mean intersection
over union. Images are prepared as the run wrote beside its weights.
"""

import functools
from pathlib import Path

from kmlp.commands.arguments import (
    CLASSIFIER,
    DETECTOR,
    RESOLUTIONS,
    SEGMENTER,
    Parser,
    add_exif,
    add_on_corrupt,
    add_preparation,
    add_reading,
    add_resolution,
    add_views,
    check_file,
    check_options,
    height_width,
    positive,
    write_json,
)
from kmlp.commands.main import Script
from kmlp.console import import_quietly
from kmlp.errors import InputError

# The scripts `evaluate.py` and `evaluate_dense.py` offer a half each of the options.
# What `--task` takes, and the kind of weights that it means.
TASKS = {"classify": CLASSIFIER, "detect": DETECTOR, "segment": SEGMENTER}
BATCH = 64  # of a classifier
SCENES = "scenes"

CLASSIFIERS = """\
Evaluates trained weights: top-1 and top-5, in whatever form they are.

    {call} saved_models/convmlp_s/1 --data imagenet/val

WEIGHTS is a run's version folder, a .keras checkpoint, a SavedModel folder or a
.tflite file. Images are prepared as the run wrote beside its weights. A .keras
checkpoint of our families is resized to another --image-size than its own:

    {call} saved_models/resmlp_s12/1/trained.keras \\
        --data imagenet/val --image-size 288
"""
DENSE = """\
Evaluates a detector or segmenter, in whatever form it is.

    {call} saved_models/retinanet_convmlp_s/1
    {call} RUN --data coco:DIR --results results.json
    {call} RUN --data ade20k:DIR --mode slide \\
        --scales 0.5,0.75,1,1.25,1.5,1.75 --flip

WEIGHTS is a run's version folder, a .keras checkpoint, a SavedModel folder or, of
segmenters, a .tflite file. Pictures are prepared as the weights say. Detectors are
scored by COCO's average precision, of boxes and of masks; segmenters by the mean
intersection over union, at the pictures' own size where the family takes any.
"""


def add_command(parser: Parser) -> None:
    """Add the arguments of `kmlp evaluate` and the job."""
    parser.add_argument(
        "--task", choices=tuple(TASKS), help="default: what the weights tell"
    )
    _add(parser, __doc__, tuple(TASKS.values()))

    def _check(options):
        if options.task == "classify" and options.data is None:
            parser.error("the following arguments are required: --data")

    parser.check = _check


def add_classifiers(parser: Parser) -> None:
    """Add the arguments of `evaluate.py` and the job."""
    _add(parser, CLASSIFIERS, (CLASSIFIER,))


def add_dense(parser: Parser) -> None:
    """Add the arguments of `evaluate_dense.py` and the job."""
    _add(parser, DENSE, (DETECTOR, SEGMENTER))


def _add(parser, description, kinds):
    """Add a description, the job, and the arguments of some kinds of weights."""
    parser.describe(description)
    classifiers, dense = CLASSIFIER in kinds, DETECTOR in kinds
    add = parser.add_argument
    add("weights", metavar="WEIGHTS", type=Path)
    named = "val/CLASS/*, test/CLASS/* or CLASS/* such as ImageNet-val or -V2; with "
    named += "--labels a folder of images; tfds:NAME; or digits, the embedded ones"
    scenes = f"{SCENES}, coco:DIR, ade20k:DIR or cityscapes:DIR (default: {SCENES})"
    helps = [f"of classifiers: {named}"] * classifiers
    helps += [f"of detectors and segmenters: {scenes}"] * dense
    add("--data", required=not dense, metavar="DATA", help="; ".join(helps))
    batch = f"default: {BATCH}, of detectors 8"
    add("--batch-size", type=positive, metavar="N", help=batch)
    add("--json", type=Path, metavar="FILE", help="write the result there too")
    add_exif(parser, default=None)
    if classifiers:
        group = parser.add_argument_group("classifiers")
        add_reading(group, exif=False)
        group.add_argument(
            "--labels",
            type=Path,
            metavar="FILE",
            help="ImageNet-ReaL's real.json, or lines of a file's name and its class, "
            "in place of class folders",
        )
        add_resolution(group, "a .keras checkpoint's spatial kernels")
        parser.set_defaults(preparation=add_preparation(parser))
    else:
        add_on_corrupt(parser, "a picture cannot be read")
    if dense:
        _add_dense(parser)
    parser.set_defaults(job=functools.partial(_evaluate, kinds))


def _add_dense(parser):
    add = parser.add_argument_group("detectors and segmenters").add_argument
    add("--images", type=positive, metavar="N", help="at most the first N pictures")
    add = parser.add_argument_group("detectors").add_argument
    add(
        "--results",
        type=Path,
        metavar="FILE",
        help="write the detections there, as COCO's file of results",
    )
    group = parser.add_argument_group(
        "segmenters (default: as the run validated its weights)"
    )
    add = group.add_argument
    add_views(group)
    add("--window", type=height_width, metavar="HxW", help="of --mode slide")
    add("--stride", type=height_width, metavar="HxW", help="from window to window")


SCRIPT = Script("evaluate.py", add_classifiers)
DENSE_SCRIPT = Script("evaluate_dense.py", add_dense)
main, parse = SCRIPT.main, SCRIPT.parse


# The kinds of weights that an option goes with, where not with all.
_GOES_WITH = {
    "data_dir": (CLASSIFIER,),
    "download": (CLASSIFIER,),
    "labels": (CLASSIFIER,),
    "resolution": (CLASSIFIER,),
    "batch_size": (CLASSIFIER, DETECTOR),
    "images": (DETECTOR, SEGMENTER),
    "results": (DETECTOR,),
    "mode": (SEGMENTER,),
    "window": (SEGMENTER,),
    "stride": (SEGMENTER,),
    "scales": (SEGMENTER,),
    "flip": (SEGMENTER,),
}


def _evaluate(kinds, options):
    """Evaluate weights of some kinds."""
    check_file(options.json, "--json")
    check_file(getattr(options, "results", None), "--results")
    import_quietly()
    from kmlp.predicting.dense_network import DETECTION, SEGMENTATION, task_of
    from kmlp.predicting.evaluation import evaluate_classifier, evaluate_dense

    task = task_of(options.weights)
    kind = {None: CLASSIFIER, DETECTION: DETECTOR, SEGMENTATION: SEGMENTER}[task]
    asked = getattr(options, "task", None)
    if asked and TASKS[asked] != kind:
        raise InputError(
            f"These weights are {kind}, and --task asks for {TASKS[asked]}: "
            f"leave it out. Received: {str(options.weights)!r} --task {asked}"
        )
    if kind not in kinds and task is None:
        raise InputError(
            "Neither a detector nor a segmenter of a run: pass its folder or what it "
            "holds; classifiers are evaluated by training/evaluate.py. "
            f"Received: {str(options.weights)!r}"
        )
    if kind not in kinds:
        raise InputError(
            f"These weights are of {task}: training/evaluate_dense.py evaluates them. "
            f"Received: {str(options.weights)!r}"
        )
    check_options(options, _GOES_WITH, kind)
    if task is not None:
        options.data = options.data or SCENES
        write_json(options.json, evaluate_dense(options, task))
        return
    if options.data is None:
        raise InputError(
            "A classifier is evaluated on images that are named: pass --data FOLDER, "
            f"tfds:NAME or digits. Received: {str(options.weights)!r} alone"
        )
    options.batch_size = options.batch_size or BATCH
    options.resolution = options.resolution or RESOLUTIONS[0]
    write_json(options.json, evaluate_classifier(options))
