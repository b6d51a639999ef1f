"""The arguments that several commands share, and the types of their values.

Nothing here imports Keras: a command says what it takes before anything heavy loads.
"""

import argparse
import ast
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from kmlp.console import FORMS
from kmlp.errors import InputError, RunError

SMALLEST_IMAGE = 8
SMALLEST_CANVAS = 32
# Kinds of weights, of which an option may go with some.
CLASSIFIER, DETECTOR, SEGMENTER = "a classifier", "a detector", "a segmenter"
# Treatments of the orientation that a JPEG's EXIF states.
EXIF = ("ignore", "apply")
# What `kmlp.resize` offers.
RESOLUTIONS = ("interpolate", "interpolate_cubic", "partition")


def add_dense(add: Any) -> None:
    """Add `--dense` by a parser's or a group's `add_argument`."""
    add(
        "--dense",
        choices=("cheaper", "all"),
        help="convolutions that become fully connected layers: those that take fewer "
        "multiply-adds so, or all, and pooling (default: none)",
    )


class Parser(argparse.ArgumentParser):
    """Parse a command's arguments, and say in one line what is wrong with them.

    Args:
        call: Words by which a person calls the command; by default the program's name.

    Attributes:
        words: Arguments that are being parsed, where the parser belongs to a command
            of `kmlp`; empty in a script.
        check: Function that refuses options which do not go together, or `None`.
    """

    def __init__(self, *arguments: Any, call: str | None = None, **options: Any):
        super().__init__(*arguments, **options)
        self.call = call or self.prog
        self.words: Sequence[str] = ()
        self.check: Callable[[argparse.Namespace], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse and check; what is left over is refused by `parse_args`."""
        options, rest = super().parse_known_args(args, namespace)
        if self.check is not None and not rest:
            self.check(options)
        return options, rest

    def error(self, message: str) -> NoReturn:
        """Leave the process with exit code 2 and one line."""
        self.exit(2, f"{self.prog}: {message}; see --help.\n")

    def describe(self, text: str | None) -> None:
        """Set a description whose line breaks stay, with the call for `{call}`.

        Args:
            text: Description, often the docstring of the command's module.
        """
        self.description = (text or "").format(call=self.call)
        self.formatter_class = argparse.RawDescriptionHelpFormatter


# Types of values.


def positive(text: str) -> int:
    """Read a positive integer."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


def _at_least(least: int) -> Callable[[str], int]:
    """Return a reader of integers from `least`."""

    def read(text: str) -> int:
        if positive(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {text}")
        return int(text)

    return read


several = _at_least(2)
image_size = _at_least(SMALLEST_IMAGE)


def _natural(words: str, below: float = float("inf")) -> Callable[[str], int]:
    """Return a reader of integers from 0, whose refusal says `words`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) >= below:
            raise argparse.ArgumentTypeError(f"must be {words}, not {text!r}")
        return int(text)

    return read


seed = _natural("in 0…2^32-1", below=2**32)  # what NumPy takes
index = _natural("0 or more")
classes = _natural("a number of classes")


def _number(words: str, allowed: Callable[[float], bool]) -> Callable[[str], float]:
    """Return a reader of numbers that are `allowed`, whose refusal says `words`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"must be {words}, not {text!r}")
        return value

    return read


_INFINITY = float("inf")
rate = _number("a positive number", lambda value: 0 < value < _INFINITY)
minutes = _number("a number of minutes", lambda value: 0 <= value < _INFINITY)
share = _number("in (0, 1]", lambda value: 0 < value <= 1)
share_of_zeros = _number("in [0, 1)", lambda value: 0 <= value < 1)
points = _number("points in 0…100", lambda value: 0 <= value <= 100)


def _each(read: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Return a reader of values with commas between them."""
    return lambda text: tuple(read(part) for part in text.split(","))


image_sizes = _each(image_size)
scales = _each(rate)


def sizes(text: str) -> tuple[int, ...]:
    """Read integers with commas between them, or `none`."""
    return () if text == "none" else _each(positive)(text)


def indices(text: str) -> tuple[int, ...]:
    """Read channels' numbers with commas between them, each once."""
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f"must be channels' numbers with commas between them, not {text!r}"
        )
    return tuple(dict.fromkeys(map(int, parts)))


def height_width(text: str) -> tuple[int, int]:
    """Read two numbers of pixels, or one for both."""
    parts = text.lower().split("x")
    if len(parts) == 1:
        parts *= 2
    if len(parts) != 2 or not all(
        part.isdecimal() and int(part) >= SMALLEST_CANVAS for part in parts
    ):
        raise argparse.ArgumentTypeError(
            f"must be HEIGHTxWIDTH, at least {SMALLEST_CANVAS} each, not {text!r}"
        )
    height, width = map(int, parts)
    return height, width


def step_range(text: str) -> tuple[int, int]:
    """Read two step numbers, the second the greater."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"must be two steps, FIRST,LAST, not {text!r}")
    first, last = map(int, parts)
    if not first < last:
        raise argparse.ArgumentTypeError(f"FIRST must come before LAST, not {text!r}")
    return first, last


def channels(text: str) -> tuple[float, ...]:
    """Read three numbers of 0…1."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3 or not all(0 <= value <= 1 for value in values):
        raise argparse.ArgumentTypeError(
            f"must be three numbers of 0…1 with commas between them, not {text!r}"
        )
    return values


def deviations(text: str) -> tuple[float, ...]:
    """Read three numbers above 0."""
    values = channels(text)
    if not all(values):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text!r}")
    return values


def setting(text: str) -> tuple[str, Any]:
    """Read an option's name and value."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier() and value):
        raise argparse.ArgumentTypeError(f"must be OPTION=VALUE, not {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


# Arguments. A `group` is a parser or a group of its arguments.


def add_architecture(group: Any) -> None:
    """Add the arguments that change an architecture: its shapes, and `--set`."""
    add = group.add_argument
    add("--num-classes", type=int)
    add(
        "--image-size",
        type=int,
        nargs="+",
        metavar="N",
        help="one size, or height and width",
    )
    add_settings(group)


def add_settings(group: Any) -> None:
    """Add `--set`, further arguments of an architecture."""
    group.add_argument(
        "--set",
        nargs="+",
        type=setting,
        default=[],
        metavar="OPTION=VALUE",
        help="further arguments of an architecture, such as local_kernels=1,3",
    )


def model_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `kmlp.create_model` beside the name."""
    shape = None
    if options.image_size is not None:
        if len(options.image_size) > 2:
            raise InputError(
                "--image-size takes one size, or height and width. "
                f"Received: {options.image_size}"
            )
        shape = (options.image_size[0], options.image_size[-1], 3)
    return {"num_classes": options.num_classes, "input_shape": shape}


def add_format(group: Any, default: str | None = "text") -> None:
    """Add `--format`, the form of a printed table.

    Args:
        group: Parser or group.
        default: Form without the option; `None` tells it apart, and means text.
    """
    group.add_argument(
        "--format",
        choices=FORMS,
        default=default,
        help=f"how the table is written (default: {default or 'text'})",
    )


def add_on_corrupt(group: Any, broken: str = "an image cannot be decoded") -> None:
    """Add `--on-corrupt`, where `broken` says what may be found."""
    group.add_argument(
        "--on-corrupt",
        choices=("stop", "skip"),
        default="stop",
        help=f"what to do where {broken} (default: stop)",
    )


def add_exif(group: Any, default: str | None = "ignore") -> None:
    """Add `--exif`; a `default` of `None` stands for what weights were trained by."""
    group.add_argument(
        "--exif",
        choices=EXIF,
        default=default,
        help="orientation that a JPEG's EXIF states: ignored, as in the published "
        f"trainers, or applied (default: {default or 'as in training'})",
    )


def add_reading(group: Any, exif: bool = True) -> None:
    """Add the arguments that say how `--data` are found and read, `exif` among them."""
    add = group.add_argument
    add("--data-dir", type=Path, metavar="FOLDER", help="where tfds: sets lie")
    add("--download", action="store_true", help="let tfds: fetch what is missing")
    add_on_corrupt(group)
    if exif:
        add_exif(group)


def add_resolution(
    group: Any, kernels: str = "spatial kernels", default: str | None = None
) -> None:
    """Add `--resolution`.

    Args:
        group: Parser or group.
        kernels: Words for whose kernels change.
        default: Value without the option; `None` tells it apart.
    """
    group.add_argument(
        "--resolution",
        choices=RESOLUTIONS,
        default=default,
        help=f"what becomes of {kernels} at another --image-size: interpolated to the "
        "new grid (linearly or cubically), or kept for blocks of it "
        f"(default: {RESOLUTIONS[0]})",
    )


def add_preparation(parser: Parser, several: bool = False) -> tuple[str, ...]:
    """Add the arguments that say how images become a model's input.

    Args:
        parser: Parser of the command.
        several: Whether there may be several networks, each with its own size.

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


def add_views(group: Any) -> None:
    """Add the arguments that say how a segmenter goes through a picture."""
    add = group.add_argument
    add(
        "--mode",
        choices=("whole", "slide"),
        help="of segmenters: the picture at once or by windows (default: as validated)",
    )
    add(
        "--scales",
        type=scales,
        metavar="X,Y,…",
        help="of segmenters: factors of the sides, over which scores are averaged",
    )
    add(
        "--flip",
        action="store_true",
        default=None,
        help="of segmenters: averaged with the mirrored picture",
    )


def check_file(path: Path | None, flag: str) -> None:
    """Refuse a file that could not be written at the end; `None` is none."""
    if path is None:
        return
    parent = path.absolute().parent
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(
            f"{flag} takes the path of a file in an existing folder that is writable. "
            f"Received: {str(path)!r}"
        )


def write_json(path: Path | None, content: Any) -> None:
    """Write a file where one was asked for, as `check_file` has checked.

    Raises:
        RunError: If it cannot be written, such as to a disk that is full.
    """
    if path is not None:
        try:
            path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise RunError(f"The result cannot be written: {error}") from error


def check_options(
    options: argparse.Namespace, goes_with: dict[str, tuple[str, ...]], kind: str
) -> None:
    """Refuse options that go with weights of another kind.

    Args:
        options: Options of the command, with the names of its `preparation` where it
            takes classifiers, with which alone they go.
        goes_with: Kinds of weights by the name of an option's value.
        kind: Kind of these weights, such as `"a detector"`.

    Raises:
        InputError: If one was given.
    """
    preparation = getattr(options, "preparation", ())
    goes_with = dict.fromkeys(preparation, (CLASSIFIER,)) | goes_with
    for name, kinds in goes_with.items():
        given = getattr(options, name, None) not in (None, False)
        if given and kind not in kinds:
            flag = {"test_interpolation": "interpolation"}.get(name, name)
            raise InputError(
                f"--{flag.replace('_', '-')} goes with {' or '.join(kinds)}, and these "
                f"weights are {kind}: leave it out. Received: {str(options.weights)!r}"
            )
