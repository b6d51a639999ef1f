"""The options that all training commands share."""

import os
import sys
from pathlib import Path

from training.console import minutes, positive, step_range

ROOT = Path(__file__).resolve().parents[1]


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
        default=ROOT / "saved_models",
        help="folder of the results (default: saved_models in the clone)",
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


def leave(code):
    """Ends the process; of several, one that failed does not wait for the others."""
    if code and os.environ.get("TF_CONFIG"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
