"""What all training commands share: their arguments, and the start of a run."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kmlp.commands.arguments import (
    Parser,
    add_dense,
    minutes,
    positive,
    rate,
    seed,
    step_range,
)
from kmlp.console import SAVED_MODELS
from kmlp.errors import RunError

# How often a worker that lost the others waits for them again.
MOST_RETURNS = 10
RETURNS = "KMLP_RETURNS"  # tells a process how often it came back


def run_or_return(options: argparse.Namespace, task: Any) -> None:
    """Run a task's job; where another worker is lost, start this process anew.

    Collective operations cannot be taken up again within a process: the same command
    replaces it, waits for all workers to be there and goes on from the checkpoint.

    Args:
        options: Options of the command.
        task: Module of the task, as `kmlp.training.job.run` takes it.

    Raises:
        RunError: If the others were lost too often.
    """
    from kmlp.training.engine.engine import WorkerLost
    from kmlp.training.job import run

    try:
        run(options, task)
    except WorkerLost as lost:
        count = int(os.environ.get(RETURNS, "0")) + 1
        if count > MOST_RETURNS:
            raise RunError(f"{lost} (the {count}th time)") from lost
        os.environ[RETURNS] = str(count)
        print(
            f"{' '.join(str(lost).split())[:300]} Waiting for all workers, time "
            f"{count} of {MOST_RETURNS}.",
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        again = [sys.executable, *sys.orig_argv[1:]]
        if sys.platform == "win32":  # which only seems to replace a process
            sys.exit(subprocess.call(again))
        os.execv(sys.executable, again)


def add_training(
    parser: Parser,
    job: Callable[[argparse.Namespace], None],
    *,
    recipe: str,
    recipes: str,
    fields: str,
    epochs: str | None = None,
    rate_note: str = "",
) -> Any:
    """Add the arguments of every training run, and the job.

    Args:
        parser: Parser of the command.
        job: Function of the options.
        recipe: Words for the default of `--recipe`.
        recipes: Words for what `--recipes` lists.
        fields: Examples of `--set`.
        epochs: Words about `--epochs`.
        rate_note: Words after "the peak" of the learning rate.

    Returns:
        The group of the recipe's arguments, for those that a task adds.
    """
    group = parser.add_argument_group("how: the recipe, and what differs from it")
    add = group.add_argument
    add("--recipe", metavar="NAME", help=f"default: {recipe}")
    add("--recipes", action="store_true", help=f"list {recipes}")
    add(
        "--set",
        action="append",
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help=f"any field of the recipe, such as {fields}",
    )
    add("--epochs", type=positive, metavar="N", help=epochs)
    add("--batch-size", type=positive, metavar="N", help="over all devices")
    add("--learning-rate", type=rate, metavar="X", help=f"the peak{rate_note}")
    add(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of weights, order and augmentation (default: 0)",
    )
    _add_devices(parser)
    _add_run(parser)
    again = "interrupted; the same command goes on from what is kept."
    parser.set_defaults(job=job, interrupted=again)
    return group


def _add_devices(parser):
    add = parser.add_argument_group("on which devices").add_argument
    add(
        "--strategy",
        choices=("auto", "single", "mirrored", "multi_worker", "tpu"),
        default="auto",
        help="several hosts are told by TF_CONFIG, and need one command, code and data "
        "each (default: what there is)",
    )
    add(
        "--patience",
        type=positive,
        default=300,
        metavar="N",
        help="seconds to wait for other hosts, or for one that was lost (default: 300)",
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


def _add_run(parser):
    add = parser.add_argument_group("the run").add_argument
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
    add_dense(add)
    add(
        "--compare-images",
        type=positive,
        default=10_000,
        metavar="N",
        help="validation images that every exported form must agree on "
        "(default: 10000)",
    )
