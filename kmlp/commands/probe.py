"""Judges frozen features: k nearest neighbours, or a linear classifier on them.

    {call} saved_models/resmlp_s12 --data flowers --method knn
    {call} fb_dino --arch resmlp_s12 --data imagenet --method knn

WEIGHTS is what kmlp.create_model takes: a run's folder, a .keras file, a published
.pth, .safetensors or .npz file, or a tag of --arch. The features are what a classifier
sees, pooled and normed, of centre crops of the training and the validation images;
nothing of the network is trained. Memory holds the features, 2 GB for the training
images of ImageNet at 384 channels, and with knn 0.3 GB besides.
"""

from pathlib import Path

from kmlp.commands.arguments import (
    RESOLUTIONS,
    Parser,
    add_exif,
    add_preparation,
    add_reading,
    add_resolution,
    check_file,
    positive,
    seed,
    write_json,
)
from kmlp.commands.main import Script
from kmlp.console import import_quietly

NEIGHBOURS = (20,)


def add_arguments(parser: Parser) -> None:
    """Add the arguments and the job."""
    parser.describe(__doc__)
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
    add_reading(parser, exif=False)
    add_exif(parser, default=None)
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
    add_resolution(parser, default=RESOLUTIONS[0])
    add_preparation(parser)

    def _check(options):
        if options.k is not None and options.method != "knn":
            parser.error("--k goes with --method knn")
        options.k = options.k or list(NEIGHBOURS)

    parser.check = _check
    parser.set_defaults(job=_run)


SCRIPT = Script("probe.py", add_arguments)
main, parse = SCRIPT.main, SCRIPT.parse


def _run(options):
    check_file(options.json, "--json")
    import_quietly()
    from kmlp.training.probing import run

    write_json(options.json, run(options))
