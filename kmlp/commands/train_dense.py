"""The command line of `train_detector.py` and `train_segmenter.py`."""

import argparse

from kmlp.commands.training_arguments import add_devices, add_run
from kmlp.console import Parser, exit_code, import_quietly, positive, rate, seed

DEFAULT_ARCH = "convmlp_s"
INTERRUPTED = "interrupted; the same command goes on from what is kept."


def main(task, program, description, heads, data, argv=None):
    """Runs the job; returns the process's exit code.

    Args:
        task: `"detection"` or `"segmentation"`.
        program: name of the command.
        description: what it does, for `--help`.
        heads: names of the detectors or segmenters.
        data: what `--data` takes beside the scenes.
        argv: of the command line; `None`: the process's.
    """
    options = parse(program, description, heads, data, argv)
    options.task = task

    def job():
        if options.recipes:
            from kmlp.recipes.dense_table import dense_table

            print(dense_table(task))
            return
        import_quietly(settle=False)
        from kmlp.training.job import run
        from kmlp.training.run import run_or_return

        if task == "detection":
            from kmlp.training.tasks import detection as of_task
        else:
            from kmlp.training.tasks import segmentation as of_task
        run_or_return(lambda options: run(options, of_task), options)

    return exit_code(program, job, INTERRUPTED)


def parse(program, description, heads, data, argv):
    """The command line."""
    parser = Parser(
        prog=program,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _what(parser.add_argument_group("what to train"), heads, data)
    _how(parser.add_argument_group("how: the recipe, and what differs from it"))
    add_devices(parser.add_argument_group("on which devices"))
    add_run(parser.add_argument_group("the run"))
    return parser.parse_args(argv)


def _what(group, heads, data):
    add = group.add_argument
    add(
        "--arch",
        default=DEFAULT_ARCH,
        metavar="NAME",
        help=f"backbone by name (default: {DEFAULT_ARCH})",
    )
    add("--head", choices=heads, help="default: the recipe's")
    add(
        "--weights",
        metavar="FILE|FOLDER|TAG",
        help="with which the backbone begins, as training/train.py takes them "
        "(default: fresh ones)",
    )
    add(
        "--data",
        metavar="|".join(["scenes", *(f"{name}:DIR" for name in data)]),
        help="default: drawn scenes of circles, squares and triangles",
    )
    add(
        "--on-corrupt",
        choices=("stop", "skip"),
        default="stop",
        help="what to do where a picture cannot be read (default: stop)",
    )


def _how(group):
    add = group.add_argument
    add("--recipe", metavar="NAME", help="default: the one of --arch and --data")
    add(
        "--recipes",
        action="store_true",
        help="list the recipes and what the papers report, and end",
    )
    add(
        "--set",
        action="append",
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="any field of the recipe, such as flip=0 head_arguments.dropout=0",
    )
    add(
        "--epochs",
        type=positive,
        metavar="N",
        help="steps where the recipe counts in steps; milestones keep their share",
    )
    add("--batch-size", type=positive, metavar="N", help="over all devices")
    add("--learning-rate", type=rate, metavar="X", help="the peak")
    add(
        "--image-size",
        type=height_width,
        metavar="HxW",
        help="what the network sees: a detector's canvas, a segmenter's crops",
    )
    add(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of weights, order and augmentation (default: 0)",
    )


def height_width(text):
    """Two numbers of pixels, or one for both."""
    parts = text.lower().split("x")
    if len(parts) == 1:
        parts *= 2
    if len(parts) != 2 or not all(p.isdecimal() and int(p) >= 32 for p in parts):
        raise argparse.ArgumentTypeError(
            f"must be HEIGHTxWIDTH, at least 32 each, not {text!r}"
        )
    return tuple(map(int, parts))
