"""The command `kmlp`."""

import os
import sys

from kmlp.commands import (
    audit,
    benchmark,
    convert,
    export,
    info,
    listing,
    plot,
    predict,
    serving,
)
from kmlp.console import Parser, exit_code
from kmlp.version import __version__

JOBS = (listing, info, convert, predict, benchmark, plot, export, audit, serving)


def main(argv=None):
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(argv)
    # Must stand before TensorFlow is imported, which the jobs do.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return exit_code("kmlp", lambda: options.job(options))


def _parser():
    parser = Parser(
        prog="kmlp", description="Vision MLPs in Keras: look up, load, measure, export."
    )
    parser.add_argument("--version", action="version", version=f"kmlp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for job in JOBS:
        job.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
