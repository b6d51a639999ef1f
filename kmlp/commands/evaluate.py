"""`kmlp evaluate`: accuracy, AP or mean IoU of trained weights.

The scripts `evaluate.py` and `evaluate_dense.py` offer a half each of its options.
"""

from pathlib import Path
from typing import Any

from kmlp.commands.arguments import (
    CLASSIFIER,
    DETECTOR,
    RESOLUTIONS,
    SEGMENTER,
    Parser,
    add_on_corrupt,
    add_preparation,
    add_reading,
    add_resolution,
    check_options,
    height_width,
    positive,
    scales,
)
from kmlp.commands.main import Script
from kmlp.console import import_quietly
from kmlp.errors import InputError

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
ANY = """\
Evaluates a classifier, a detector or a segmenter, in whatever form it is.

    {call} saved_models/convmlp_s/1 --data imagenet/val
    {call} saved_models/retinanet_convmlp_s/1 --data coco:DIR
    {call} RUN --data ade20k:DIR --mode slide --scales 0.5,0.75,1,1.25,1.5,1.75 --flip

WEIGHTS is a run's version folder, a .keras checkpoint, a SavedModel folder or a .tflite
file, which tells what it is. Classifiers are scored by top-1 and top-5; detectors by
COCO's average precision, of boxes and of masks; segmenters by the mean intersection
over union. Images are prepared as the run wrote beside its weights.
"""


def add_command(parser: Parser) -> None:
    """Add the arguments of `kmlp evaluate` and the job."""
    parser.describe(ANY)
    add = parser.add_argument
    add("weights", metavar="WEIGHTS", type=Path)
    add("--task", choices=tuple(TASKS), help="default: what the weights tell")
    add(
        "--data",
        metavar="DATA",
        help="of classifiers: FOLDER, tfds:NAME or digits; of detectors and "
        f"segmenters: {SCENES}, coco:DIR, ade20k:DIR or cityscapes:DIR "
        f"(default: {SCENES})",
    )
    add("--batch-size", type=positive, metavar="N", help=f"default: {BATCH}, or 8")
    add("--json", type=Path, metavar="FILE", help="write the result there too")
    group = parser.add_argument_group("classifiers")
    add_reading(group)
    _add_labels(group)
    add_resolution(group, "a .keras checkpoint's spatial kernels")
    preparation = add_preparation(parser)
    group = parser.add_argument_group("detectors and segmenters")
    _add_images(group)
    _add_results(parser.add_argument_group("detectors"))
    _add_way(parser)

    def _check(options):
        if options.task == "classify" and options.data is None:
            parser.error("the following arguments are required: --data")

    parser.check = _check
    parser.set_defaults(job=_evaluate, preparation=preparation)


def add_classifiers(parser: Parser) -> None:
    """Add the arguments of `evaluate.py` and the job."""
    parser.describe(CLASSIFIERS)
    add = parser.add_argument
    add("weights", metavar="WEIGHTS", type=Path)
    add(
        "--data",
        required=True,
        metavar="FOLDER|tfds:NAME|digits",
        help="val/CLASS/*, test/CLASS/* or CLASS/* such as ImageNet-val or -V2; with "
        "--labels a folder of images; a data set of TensorFlow Datasets; or the "
        "embedded digits",
    )
    add_reading(parser)
    _add_labels(parser)
    add(
        "--batch-size",
        type=positive,
        default=BATCH,
        metavar="N",
        help=f"default: {BATCH}",
    )
    add_resolution(parser, "a .keras checkpoint's spatial kernels", RESOLUTIONS[0])
    add("--json", type=Path, metavar="FILE", help="write the result there too")
    add_preparation(parser)
    parser.set_defaults(job=_classify)


def add_dense(parser: Parser) -> None:
    """Add the arguments of `evaluate_dense.py` and the job."""
    parser.describe(DENSE)
    add = parser.add_argument
    add("weights", metavar="WEIGHTS", type=Path)
    add(
        "--data",
        default=SCENES,
        metavar="scenes|coco:DIR|ade20k:DIR|cityscapes:DIR",
        help=f"whose validation pictures are taken (default: {SCENES})",
    )
    add_on_corrupt(parser, "a picture cannot be read")
    _add_images(parser)
    add("--json", type=Path, metavar="FILE", help="write the figures there too")
    detectors = parser.add_argument_group("detectors")
    detectors.add_argument(
        "--batch-size", type=positive, metavar="N", help="default: 8"
    )
    _add_results(detectors)
    _add_way(parser)
    parser.set_defaults(job=_detect_or_segment)


def _add_labels(group):
    group.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="ImageNet-ReaL's real.json, or lines of a file's name and its class, in "
        "place of class folders",
    )


def _add_images(group):
    group.add_argument(
        "--images", type=positive, metavar="N", help="at most the first N pictures"
    )


def _add_results(group):
    group.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="write the detections there, as COCO's file of results",
    )


def _add_way(parser):
    group = parser.add_argument_group(
        "segmenters (default: as the run validated its weights)"
    )
    add = group.add_argument
    add("--mode", choices=("whole", "slide"), help="the picture at once, or by windows")
    add("--window", type=height_width, metavar="HxW", help="of --mode slide")
    add("--stride", type=height_width, metavar="HxW", help="from window to window")
    add(
        "--scales",
        type=scales,
        metavar="X,Y,…",
        help="factors of the sides, over which scores are averaged (MS mIoU)",
    )
    add(
        "--flip",
        action="store_true",
        default=None,
        help="average with the mirrored pictures too",
    )


SCRIPT = Script("evaluate.py", add_classifiers)
DENSE_SCRIPT = Script("evaluate_dense.py", add_dense)
main, parse = SCRIPT.main, SCRIPT.parse


def _classify(options: Any) -> None:
    import_quietly()
    from kmlp.predicting.evaluation import run

    run(options)


def _detect_or_segment(options: Any) -> None:
    import_quietly()
    from kmlp.predicting.dense_evaluation import run

    run(options)


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


def _evaluate(options):
    import_quietly()
    from kmlp.predicting.dense_network import DETECTION, SEGMENTATION, task_of

    kinds = {None: CLASSIFIER, DETECTION: DETECTOR, SEGMENTATION: SEGMENTER}
    kind = kinds[task_of(options.weights)]
    if options.task and TASKS[options.task] != kind:
        raise InputError(
            f"These weights are {kind}, and --task asks for {TASKS[options.task]}: "
            f"leave it out. Received: {str(options.weights)!r} --task {options.task}"
        )
    goes_with = _GOES_WITH | {name: (CLASSIFIER,) for name in options.preparation}
    check_options(options, goes_with, kind, options.weights, unset=(None, False))
    if kind != CLASSIFIER:
        options.data = options.data or SCENES
        _detect_or_segment(options)
        return
    if options.data is None:
        raise InputError(
            "A classifier is evaluated on images that are named: pass --data FOLDER, "
            f"tfds:NAME or digits. Received: {str(options.weights)!r} alone"
        )
    options.batch_size = options.batch_size or BATCH
    options.resolution = options.resolution or RESOLUTIONS[0]
    _classify(options)
