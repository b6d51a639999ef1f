"""Evaluates trained weights: top-1 and top-5, in whatever form they are.

    python training/evaluate.py saved_models/convmlp_s/1 --data imagenet/val

WEIGHTS is a run's version folder, a .keras checkpoint, a SavedModel folder or a
.tflite file. Images are prepared as the run wrote beside its weights. A .keras
checkpoint of our families is resized to another --image-size than its own:

    python training/evaluate.py saved_models/resmlp_s12/1/trained.keras \\
        --data imagenet/val --image-size 288
"""

import argparse
from pathlib import Path

from kmlp.console import (
    RESOLUTIONS,
    Parser,
    add_preparation,
    add_reading,
    exit_code,
    import_quietly,
    positive,
)


def main(argv=None):
    """Runs the evaluation; returns the process's exit code."""
    options = parse(argv)

    def job():
        import_quietly()
        from kmlp.predicting.evaluation import run

        run(options)

    return exit_code("evaluate.py", job)


def parse(argv):
    """The command line."""
    parser = Parser(
        prog="evaluate.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    add(
        "--labels",
        type=Path,
        metavar="FILE",
        help="ImageNet-ReaL's real.json, or lines of a file's name and its class, in "
        "place of class folders",
    )
    add("--batch-size", type=positive, default=64, metavar="N", help="default: 64")
    add(
        "--resolution",
        choices=RESOLUTIONS,
        default=RESOLUTIONS[0],
        help="what becomes of a .keras checkpoint's spatial kernels at another "
        "--image-size: interpolated to the new grid (linearly or cubically), or kept "
        f"for blocks of it (default: {RESOLUTIONS[0]})",
    )
    add("--json", type=Path, metavar="FILE", help="write the result there too")
    add_preparation(parser)
    return parser.parse_args(argv)
