"""What a person at the terminal sees: our lines, none of the libraries' chatter."""

import argparse
import os
import sys
import traceback
from pathlib import Path

from kmlp.errors import Interrupted, KmlpError, RunError, TimeUp

SMALLEST_IMAGE = 8
# What `kmlp.resize` offers, known before Keras is imported.
RESOLUTIONS = ("interpolate", "interpolate_cubic", "partition")
_CLONE = Path(__file__).resolve().parents[1]
# Where results go: into the clone, or outside of one where the command runs.
SAVED_MODELS = (
    _CLONE / "saved_models"
    if (_CLONE / "training" / "train.py").is_file()
    else Path("saved_models")
)
NAMED = 3  # how many of many a message names


def first_line(error):
    """What an exception says, in one line; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def some(names):
    """The first few of many names, sorted."""
    names = sorted(map(str, names))
    return ", ".join(names[:NAMED]) + ", …" * (len(names) > NAMED) or "none"


def aligned(rows, left=1):
    """Rows of cells as text: `left` columns stand left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


def exit_code(program, job, interrupted="interrupted."):
    """Run a command's job and turn its end into one line and an exit code.

    Args:
        program: Name of the command.
        job: Function without arguments.
        interrupted: What is said of Ctrl-C.

    Returns:
        0 at the end of the work or of its time; 1 where it could not be finished; 2 for
        input that cannot be worked with; 128 and the signal's number after a signal.
        With `KMLP_DEBUG=1` in the environment the traceback is printed too.
    """
    try:
        job()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe has gone; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(f"\n{program}: {interrupted}", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("KMLP_DEBUG") == "1":
            traceback.print_exc()
        message, code = _end(error)
        print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
        return code
    return 0


def _end(error):
    """Return the line and the exit code that an exception ends a command with."""
    if isinstance(error, TimeUp):
        return str(error), 0
    if isinstance(error, Interrupted):
        return str(error), 128 + error.signal
    if isinstance(error, RunError):
        return str(error), 1
    if isinstance(error, (KmlpError, OSError, ImportError)):
        return str(error), 2
    return (
        f"{type(error).__name__}: {first_line(error)[:300]} This is a fault of kmlp: "
        "please report it where you got kmlp from, with the command and what it prints "
        "with KMLP_DEBUG=1 in the environment."
    ), 1


def import_quietly(settle=True, needed=True):
    """Imports TensorFlow and Keras without the lines they write while loading.

    Args:
        settle: whether TensorFlow looks for its devices now, after which they cannot
            be divided and workers cannot meet.
        needed: whether TensorFlow is imported where it is not Keras' backend; else
            this process does without, whoever asks for it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if not needed and os.environ["KERAS_BACKEND"] != "tensorflow":
        # Keras would import it as soon as it writes down a layer's arguments.
        sys.modules.setdefault("tensorflow", None)
        return
    from kmlp.quiet import quiet

    with quiet():
        import tensorflow as tf

        if settle:
            tf.config.list_logical_devices()
    tf.get_logger().setLevel("ERROR")


def progress_bar(total, unit, *, shown=True, **options):
    """A bar on a terminal, nothing elsewhere.

    Args:
        total: how many there are; `None`: unknown.
        unit: what they are.
        shown: whether there is a bar at all.
        **options: further ones of `tqdm`, such as `desc` and `initial`.
    """
    shown = shown and sys.stderr.isatty()
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    return tqdm(
        total=total,
        unit=unit,
        disable=not shown,
        leave=False,
        dynamic_ncols=True,
        **options,
    )


class _NoBar:
    """What a bar answers where `tqdm` is not installed."""

    def update(self, count=1):
        pass

    def set_postfix_str(self, text, refresh=True):
        pass

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see --help.\n")


def positive(text):
    """A positive integer."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


def seed(text):
    """What NumPy takes as a seed."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be in 0…2^32-1, not {text!r}")
    return int(text)


def image_size(text):
    """A number of pixels."""
    if positive(text) < SMALLEST_IMAGE:
        raise argparse.ArgumentTypeError(
            f"must be at least {SMALLEST_IMAGE}, not {text}"
        )
    return int(text)


def image_sizes(text):
    """Numbers of pixels with commas between them."""
    return tuple(image_size(part) for part in text.split(","))


def rate(text):
    """A positive number."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, not {text!r}")
    return value


def sizes(text):
    """Integers with commas between them, or `none`."""
    return () if text == "none" else tuple(positive(part) for part in text.split(","))


def scales(text):
    """Positive numbers with commas between them."""
    return tuple(rate(part) for part in text.split(","))


def minutes(text):
    """A number of minutes, 0 for always."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of minutes, not {text!r}")
    return value


def step_range(text):
    """Two step numbers, the second the greater."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"must be two steps, FIRST,LAST, not {text!r}")
    first, last = map(int, parts)
    if not first < last:
        raise argparse.ArgumentTypeError(f"FIRST must come before LAST, not {text!r}")
    return first, last


def share(text):
    """A number in (0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be in (0, 1], not {text!r}")
    return value


def channels(text):
    """Three numbers of 0…1."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3 or not all(0 <= value <= 1 for value in values):
        raise argparse.ArgumentTypeError(
            f"must be three numbers of 0…1 with commas between them, not {text!r}"
        )
    return values


def deviations(text):
    """Three numbers above 0."""
    values = channels(text)
    if not all(values):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text!r}")
    return values


def add_reading(parser):
    """Adds the arguments that say how `--data` are found and read."""
    add = parser.add_argument
    add("--data-dir", type=Path, metavar="FOLDER", help="where tfds: sets lie")
    add("--download", action="store_true", help="let tfds: fetch what is missing")
    add(
        "--on-corrupt",
        choices=("stop", "skip"),
        default="stop",
        help="what to do where an image cannot be decoded (default: stop)",
    )


def add_preparation(parser, several=False):
    """Adds the arguments that say how images become a model's input.

    Args:
        several: whether there may be several networks, each with a size of its own.

    Returns:
        The names of their values.
    """
    group = parser.add_argument_group(
        "preparing images (default: as the run wrote beside its weights)"
    )
    add = group.add_argument
    arguments = (
        add(
            "--image-size",
            type=image_sizes if several else image_size,
            metavar="PIXELS" + ",…" * several,
            help="height and width" + "; one for all networks, or one each" * several,
        ),
        add("--mean", type=channels, metavar="R,G,B", help="of images in 0…1"),
        add("--std", type=deviations, metavar="R,G,B", help="the same"),
        add(
            "--test-crop",
            type=share,
            metavar="X",
            help="side of the centre crop for the resized image's shorter side (1)",
        ),
        add(
            "--interpolation",
            dest="test_interpolation",
            choices=("bilinear", "bicubic"),
            help="of the resizing (bilinear)",
        ),
    )
    return tuple(argument.dest for argument in arguments)
