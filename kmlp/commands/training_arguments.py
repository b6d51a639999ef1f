"""The arguments that all training commands share."""

from pathlib import Path
from typing import Any

from kmlp.commands.arguments import Parser, minutes, positive, rate, seed, step_range
from kmlp.console import SAVED_MODELS

INTERRUPTED = "interrupted; the same command goes on from what is kept."


def add_changes(
    parser: Parser,
    *,
    recipe: str,
    recipes: str,
    fields: str,
    epochs: str | None = None,
    rate_note: str = "",
) -> Any:
    """Add a recipe and what differs from it.

    Args:
        parser: Parser of the command.
        recipe: Words for the default of `--recipe`.
        recipes: Words for what `--recipes` lists.
        fields: Examples of `--set`.
        epochs: Words about `--epochs`.
        rate_note: Words after "the peak" of the learning rate.

    Returns:
        The group of the arguments, for those that a task adds.
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
    return group


def add_devices(parser: Parser) -> None:
    """Add the arguments that say where a run computes."""
    add = parser.add_argument_group("on which devices").add_argument
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


def add_run(parser: Parser) -> None:
    """Add the arguments of every run: its place, its checkpoints, its curves."""
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
    add(
        "--compare-images",
        type=positive,
        default=10_000,
        metavar="N",
        help="validation images that every exported form must agree on "
        "(default: 10000)",
    )
