"""Evaluates a detector or segmenter, in whatever form it is.

    python training/evaluate_dense.py saved_models/retinanet_convmlp_s/1
    python training/evaluate_dense.py RUN --data coco:DIR --results results.json
    python training/evaluate_dense.py RUN --data ade20k:DIR --mode slide \\
        --scales 0.5,0.75,1,1.25,1.5,1.75 --flip

WEIGHTS is a run's version folder, a .keras checkpoint, a SavedModel folder or, of
segmenters, a .tflite file. Pictures are prepared as the weights say. Detectors are
scored by COCO's average precision, of boxes and of masks; segmenters by the mean
intersection over union, at the pictures' own size where the family takes any.
"""

import argparse
from pathlib import Path

from kmlp.commands.train_dense import height_width
from kmlp.console import Parser, exit_code, import_quietly, positive, scales


def main(argv=None):
    """Runs the evaluation; returns the process's exit code."""
    options = parse(argv)

    def job():
        import_quietly()
        from kmlp.predicting.dense_evaluation import run

        run(options)

    return exit_code("evaluate_dense.py", job)


def parse(argv):
    """The command line."""
    parser = Parser(
        prog="evaluate_dense.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("weights", metavar="WEIGHTS", type=Path)
    add(
        "--data",
        default="scenes",
        metavar="scenes|coco:DIR|ade20k:DIR|cityscapes:DIR",
        help="whose validation pictures are taken (default: scenes)",
    )
    add(
        "--on-corrupt",
        choices=("stop", "skip"),
        default="stop",
        help="what to do where a picture cannot be read (default: stop)",
    )
    add("--images", type=positive, metavar="N", help="at most the first N pictures")
    add("--json", type=Path, metavar="FILE", help="write the figures there too")
    detectors = parser.add_argument_group("detectors")
    add = detectors.add_argument
    add("--batch-size", type=positive, metavar="N", help="default: 8")
    add(
        "--results",
        type=Path,
        metavar="FILE",
        help="write the detections there, as COCO's file of results",
    )
    segmenters = parser.add_argument_group(
        "segmenters (default: as the run validated its weights)"
    )
    add = segmenters.add_argument
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
    return parser.parse_args(argv)
