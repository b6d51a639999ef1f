"""The options that all training commands share."""

import os
import sys
from pathlib import Path

from kmlp.console import SAVED_MODELS, minutes, positive, step_range


def add_devices(group):
    """Adds the arguments that say where a job runs."""
    add = group.add_argument
    add(
        "--strategy",
        choices=("auto", "single", "mirrored", "multi_worker", "tpu"),
        default="auto",
        help="several hosts are told by TF_CONFIG (default: what there is)",
    )
    add(
        "--devices",
        type=positive,
        metavar="N",
        help="devices of this host; without GPUs, so many parts of its CPU",
    )
    add(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of activations; weights stay float32 (default: float32)",
    )
    add("--xla", action="store_true", help="compile the step")
    add("--steps-per-execution", type=positive, default=1, metavar="N")


def add_run(group):
    """Adds the arguments of every run: its place, its checkpoints, its curves."""
    add = group.add_argument
    add(
        "--output",
        type=Path,
        metavar="FOLDER",
        default=SAVED_MODELS,
        help="folder of the results (default: saved_models in the clone, or here)",
    )
    add("--fresh", action="store_true", help="do not go on with a run that stopped")
    add(
        "--rehearse",
        action="store_true",
        help="a few steps of everything, on a few images per device, and an estimate "
        "of the whole run",
    )
    add(
        "--checkpoint-minutes",
        type=minutes,
        default=5.0,
        metavar="X",
        help="between two checkpoints (default: 5)",
    )
    add("--checkpoint-steps", type=positive, metavar="N", help="the same in steps")
    add(
        "--log-steps",
        type=positive,
        default=50,
        metavar="N",
        help="between two points of the curves (default: 50)",
    )
    add(
        "--profile",
        type=step_range,
        metavar="FIRST,LAST",
        help="steps to profile for TensorBoard",
    )
    add(
        "--publish",
        choices=("last", "best"),
        default="last",
        help="which weights are merged and exported (default: last)",
    )
    add(
        "--compare-images",
        type=positive,
        default=10_000,
        metavar="N",
        help="validation images that every exported form must agree on "
        "(default: 10000)",
    )


def add_study(group):
    """Adds the arguments of a study of a table of ablations."""
    add = group.add_argument
    add(
        "--study",
        metavar="PAPER/TABLE",
        help="train all rows of a table of ablations under one recipe and seed, such "
        "as repmlpnet/table4; list shows the tables",
    )
    add(
        "--scale",
        default="full",
        metavar="full|smoke",
        help="smoke: smaller networks, fewer images and epochs, a rehearsal of "
        "minutes (default: full)",
    )
    add(
        "--minutes",
        type=minutes,
        metavar="X",
        help="end after so long, with exit code 0; the same command goes on",
    )
    add(
        "--throughput",
        action="store_true",
        help="measure all rows' training steps in turns and train nothing; without "
        "--data on random images",
    )


# Options of single runs that a study has no use for.
_NOT_OF_A_STUDY = (
    "arch",
    "weights",
    "resolution",
    "freeze",
    "data_dir",
    "download",
    "num_classes",
    "recipe",
    "recipes",
    "local_kernels",
    "teacher",
    "rehearse",
    "profile",
    "publish",
    "compare_images",
)


def check_study(parser, options):
    """Whether a study is asked for, whose options go together.

    Leaves the process with a line where they do not.
    """

    def given(name):
        return getattr(options, name) != parser.get_default(name)

    if options.study is None:
        for name in ("scale", "minutes", "throughput"):
            if given(name):
                parser.error(f"--{name} goes with --study")
        return False
    for name in _NOT_OF_A_STUDY:
        if given(name):
            parser.error(f"--{name.replace('_', '-')} does not go with --study")
    if options.throughput and options.minutes is not None:
        parser.error("--minutes does not go with --throughput")
    return True


def leave(code):
    """Ends the process; of several, one that failed does not wait for the others."""
    if code and os.environ.get("TF_CONFIG"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
