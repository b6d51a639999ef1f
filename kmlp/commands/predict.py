"""`kmlp predict`: what images show."""

from pathlib import Path

from kmlp.commands.arguments import check_file
from kmlp.console import (
    RESOLUTIONS,
    add_preparation,
    import_quietly,
    positive,
    rate,
    scales,
)
from kmlp.errors import InputError

CLASSIFIER, DETECTOR, SEGMENTER = "a classifier", "a detector", "a segmenter"
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


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser(
        "predict",
        help="what images show: classes, objects or class maps",
        description="Prints the likeliest classes of images by any weights: published "
        "ones, a run's, a SavedModel or a TFLite file; by those of a detector or "
        "segmenter the objects, or the share of each class.",
    )
    add = command.add_argument
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
    _classifying(command.add_argument_group("classifiers"))
    _dense(command.add_argument_group("detectors and segmenters"))
    names = add_preparation(command)
    command.set_defaults(job=run, preparation=names)


def _classifying(group):
    add = group.add_argument
    add("--arch", metavar="NAME", help="of published files that do not tell")
    add("--top", type=positive, metavar="K", help="classes (default: 5)")
    add(
        "--resolution",
        choices=RESOLUTIONS,
        help="what becomes of spatial kernels at another --image-size "
        f"(default: {RESOLUTIONS[0]})",
    )


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


def run(options):
    """Prints what images show; one that cannot be read ends with code 1."""
    check_file(options.json, "--json")
    import_quietly()
    from kmlp.commands import predict_classes, predict_maps, predict_objects
    from kmlp.predicting.dense_network import DETECTION, SEGMENTATION, task_of

    kind, job = {
        None: (CLASSIFIER, predict_classes.run),
        DETECTION: (DETECTOR, predict_objects.run),
        SEGMENTATION: (SEGMENTER, predict_maps.run),
    }[task_of(options.weights)]
    _check(options, kind)
    job(options)


def _check(options, kind):
    """Raises `InputError` for an option that goes with other weights."""
    goes_with = {name: (CLASSIFIER,) for name in options.preparation} | GOES_WITH
    for name, kinds in goes_with.items():
        if getattr(options, name) is not None and kind not in kinds:
            flag = {"test_interpolation": "interpolation"}.get(name, name)
            raise InputError(
                f"--{flag.replace('_', '-')} goes with {' or '.join(kinds)}, and these "
                f"weights are {kind}: leave it out. Received: {options.weights!r}"
            )
