"""Compresses a trained network: prunes, clusters or quantises it while fine-tuning.

    {call} saved_models/resmlp_s12/1 --data cifar10 --method prune

RUN is a run's version folder with its recipe.json. The network is merged first: what
counts is the kernel that local branches and norms merge into. It is then fine-tuned
on the run's data under the run's recipe, compared with what it was, and published as
a version folder of its own. Needs `pip install 'kmlp[optimize]'`.
"""

from pathlib import Path

from kmlp.commands.arguments import (
    Parser,
    positive,
    rate,
    seed,
    several,
    share_of_zeros,
)
from kmlp.commands.main import Script
from kmlp.console import import_quietly
from kmlp.errors import InputError

METHODS = ("prune", "cluster", "quantize")
UNSTRUCTURED, TWO_OF_FOUR = PATTERNS = ("unstructured", "2:4")
# Option -> the method that it belongs to, and its default there.
OF_METHOD = {
    "pattern": ("prune", UNSTRUCTURED),
    "sparsity": ("prune", 0.5),
    "mixing_sparsity": ("prune", 0.9),
    "devices": ("prune", 1),
    "clusters": ("cluster", 16),
}


def add_arguments(parser: Parser) -> None:
    """Add the arguments and the job."""
    parser.describe(__doc__)
    add = parser.add_argument
    add("run", metavar="RUN", type=Path)
    add("--data", required=True, metavar="FOLDER|tfds:NAME|digits")
    add("--method", required=True, choices=METHODS)
    add("--epochs", type=positive, default=1, metavar="N", help="default: 1")
    add(
        "--learning-rate",
        type=rate,
        metavar="X",
        help="at the start, falling to 0 (default: 0.3 of the recipe's peak)",
    )
    add("--seed", type=seed, default=0, metavar="N", help="default: 0")
    add(
        "--images",
        type=positive,
        metavar="N",
        help="at most N validation images for the comparison",
    )
    add(
        "--calibration-images",
        type=positive,
        default=200,
        metavar="N",
        help="training images that show the ranges of int8 (default: 200)",
    )
    add(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="of the versions (default: saved_models/compressed/ARCHITECTURE_METHOD "
        "in the clone)",
    )
    add = parser.add_argument_group("prune").add_argument
    add(
        "--pattern",
        choices=PATTERNS,
        help=f"any weights, or two of every four inputs (default: {UNSTRUCTURED})",
    )
    add(
        "--sparsity",
        type=share_of_zeros,
        metavar="X",
        help="share of zeros in the channel layers (default: 0.5)",
    )
    add(
        "--mixing-sparsity",
        type=share_of_zeros,
        metavar="X",
        help="in the layers that mix patches (default: 0.9)",
    )
    add(
        "--devices",
        type=positive,
        metavar="N",
        help="GPUs, or parts of the CPU, that share the batch (default: 1)",
    )
    add = parser.add_argument_group("cluster").add_argument
    add(
        "--clusters",
        type=several,
        metavar="N",
        help="distinct values per kernel and share-set (default: 16)",
    )
    parser.set_defaults(job=_run)


SCRIPT = Script("compress.py", add_arguments)
main, parse = SCRIPT.main, SCRIPT.parse


def _run(options):
    _settle(options)
    import_quietly(settle=False)
    from kmlp.compression.compressing import run

    run(options)


def _settle(options):
    """Give the method's own options their defaults.

    Raises:
        InputError: If one belongs to another method or pattern.
    """
    for name, (method, default) in OF_METHOD.items():
        flag = f"--{name.replace('_', '-')}"
        given = getattr(options, name)
        if given is not None and options.method != method:
            raise InputError(
                f"{flag} goes with --method {method}: leave it out. "
                f"Received: --method {options.method} {flag} {given}"
            )
        shares = name in ("sparsity", "mixing_sparsity")
        if given is not None and shares and options.pattern == TWO_OF_FOUR:
            raise InputError(
                f"Of two in every four weights, half are zero: leave {flag} out. "
                f"Received: --pattern {TWO_OF_FOUR} {flag} {given}"
            )
        if given is None:
            setattr(options, name, default)
