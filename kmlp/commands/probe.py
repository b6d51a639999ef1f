"""Judges frozen features: k nearest neighbours, or a linear classifier on them.

    python training/probe.py saved_models/resmlp_s12 --data flowers --method knn
    python training/probe.py fb_dino --arch resmlp_s12 --data imagenet --method knn

WEIGHTS is what kmlp.create_model takes: a run's folder, a .keras file, a published
.pth, .safetensors or .npz file, or a tag of --arch. The features are what a classifier
sees, pooled and normed, of centre crops of the training and the validation images;
nothing of the network is trained. Memory holds the features, 2 GB for the training
images of ImageNet at 384 channels, and with knn 0.3 GB besides.
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
    seed,
)


def main(argv=None):
    """Runs the probe; returns the process's exit code."""
    options = parse(argv)

    def job():
        import_quietly()
        from kmlp.training.probing.probing import run

        run(options)

    return exit_code("probe.py", job)


def parse(argv):
    """The command line."""
    parser = Parser(
        prog="probe.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("weights", metavar="WEIGHTS")
    add("--arch", metavar="NAME", help="architecture of weights that do not tell it")
    add(
        "--data",
        required=True,
        metavar="FOLDER|tfds:NAME|digits",
        help="train/CLASS/* and val/CLASS/* or test/CLASS/*; a data set of TensorFlow "
        "Datasets; or the embedded digits",
    )
    add_reading(parser)
    add(
        "--method",
        required=True,
        choices=("knn", "linear"),
        help="neighbours by cosine similarity, whose votes weigh exp(s / 0.07); or "
        "logistic regression, its penalty chosen on a tenth of the training images",
    )
    add(
        "--k",
        type=positive,
        nargs="+",
        metavar="N",
        help="of knn: numbers of neighbours (default: 20)",
    )
    add("--train-images", type=positive, metavar="N", help="of all classes evenly")
    add("--images", type=positive, metavar="N", help="the same of validation images")
    add(
        "--features",
        type=Path,
        metavar="FILE.npz",
        help="keep the features there; where they are already, use them",
    )
    add("--batch-size", type=positive, default=64, metavar="N", help="default: 64")
    add("--seed", type=seed, default=0, metavar="N", help="which tenth (default: 0)")
    add("--json", type=Path, metavar="FILE", help="write the result there too")
    add(
        "--resolution",
        choices=RESOLUTIONS,
        default=RESOLUTIONS[0],
        help="what becomes of spatial kernels at another --image-size "
        "(default: interpolate)",
    )
    add_preparation(parser)
    options = parser.parse_args(argv)
    if options.k is not None and options.method != "knn":
        parser.error("--k goes with --method knn")
    options.k = options.k or [20]
    return options
