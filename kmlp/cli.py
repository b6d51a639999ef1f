"""The command `kmlp`."""

import os
import sys

from kmlp.console import Parser, exit_code
from kmlp.jobs import (
    architectures,
    audit,
    benchmark,
    convert,
    export,
    info,
    plot,
    predict,
    serving,
)
from kmlp.version import __version__

JOBS = (architectures, info, convert, predict, benchmark, plot, export, audit, serving)
# What a wrong input raises in the library; everything else is a fault of ours.
INPUT_ERRORS = (ValueError, OSError, ImportError)


def main(argv=None):
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(argv)
    # Must stand before TensorFlow is imported, which the jobs do.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return exit_code("kmlp", lambda: options.job(options), errors=INPUT_ERRORS)


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
