"""Arguments that say how images become a model's input."""

import argparse

from kmlp.console import image_size

NAMES = ("image_size", "mean", "std", "test_crop", "test_interpolation")


def add_preparation(command):
    """Adds a group of arguments; the names of their values are `NAMES`."""
    group = command.add_argument_group(
        "preparing images (default: as the run wrote beside its weights)"
    )
    add = group.add_argument
    add("--image-size", type=image_size, metavar="PIXELS", help="height and width")
    add("--mean", type=channels, metavar="R,G,B", help="of images in 0…1")
    add("--std", type=deviations, metavar="R,G,B", help="the same")
    add(
        "--test-crop",
        type=share,
        metavar="X",
        help="side of the centre crop for the resized image's shorter side (1)",
    )
    add(
        "--interpolation",
        dest="test_interpolation",
        choices=("bilinear", "bicubic"),
        help="of the resizing (bilinear)",
    )


def given(options):
    """`{name: value}` of what the command line says, `None` where it says nothing."""
    return {name: getattr(options, name) for name in NAMES}


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
