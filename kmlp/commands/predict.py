"""`kmlp predict`: what images show."""

from pathlib import Path

from kmlp.commands.arguments import (
    CLASSIFIER,
    DETECTOR,
    SEGMENTER,
    Parser,
    add_preparation,
    add_resolution,
    check_file,
    check_options,
    positive,
    rate,
    scales,
)
from kmlp.console import import_quietly

# Which weights an option goes with, where not with all.
GOES_WITH = {
    "arch": (CLASSIFIER,),
    "top": (CLASSIFIER,),
    "resolution": (CLASSIFIER,),
    "batch_size": (CLASSIFIER, DETECTOR),
    "overlays": (DETECTOR, SEGMENTER),
    "score": (DETECTOR,),
    "maps": (SEGMENTER,),
    "mode": (SEGMENTER,),
    "scales": (SEGMENTER,),
    "flip": (SEGMENTER,),
}


def add_arguments(parser: Parser) -> None:
    """Add the arguments and the job."""
    parser.description = (
        "Prints the likeliest classes of images by any weights: published "
        "ones, a run's, a SavedModel or a TFLite file; by those of a detector or "
        "segmenter the objects, or the share of each class."
    )
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="files, folders or 'patterns/*.jpg'")
    add(
        "--weights",
        required=True,
        metavar="NAME|FILE|FOLDER",
        help="such as resmlp_s12.fb_in1k (`kmlp list --weights`), a published file, a "
        "run's or a preset's folder, a .keras, SavedModel or .tflite",
    )
    add("--json", type=Path, metavar="FILE", help="the result as JSON too")
    add("--batch-size", type=positive, metavar="N", help="default: 32, of detectors 8")
    _classifying(parser.add_argument_group("classifiers"))
    _dense(parser.add_argument_group("detectors and segmenters"))
    parser.set_defaults(job=_run, preparation=add_preparation(parser))


def _classifying(group):
    add = group.add_argument
    add("--arch", metavar="NAME", help="of published files that do not tell")
    add("--top", type=positive, metavar="K", help="classes (default: 5)")
    add_resolution(group)


def _dense(group):
    add = group.add_argument
    add("--overlays", type=Path, metavar="FOLDER", help="pictures with what was found")
    add(
        "--score",
        type=rate,
        metavar="X",
        help="of detectors: print and draw objects from this score on (default: 0.3)",
    )
    add("--maps", type=Path, metavar="FOLDER", help="of segmenters: PNGs of classes")
    add(
        "--mode",
        choices=("whole", "slide"),
        help="of segmenters: the picture at once or by windows (default: as validated)",
    )
    add("--scales", type=scales, metavar="X,Y,…", help="of segmenters: averaged over")
    add(
        "--flip",
        action="store_true",
        default=None,
        help="of segmenters: averaged with the mirrored picture",
    )


def _run(options):
    check_file(options.json, "--json")
    import_quietly()
    from kmlp.commands.predicted import print_classes, print_maps, print_objects
    from kmlp.predicting.dense_network import DETECTION, SEGMENTATION, task_of

    kind, job = {
        None: (CLASSIFIER, print_classes),
        DETECTION: (DETECTOR, print_objects),
        SEGMENTATION: (SEGMENTER, print_maps),
    }[task_of(options.weights)]
    goes_with = {name: (CLASSIFIER,) for name in options.preparation} | GOES_WITH
    check_options(options, goes_with, kind, options.weights)
    job(options)
