"""Arguments that several jobs share: architectures, their options, JSON files."""

import argparse
import ast
import os

from kmlp.errors import InputError


def add_architecture(command):
    """Adds the arguments that change an architecture's shapes."""
    command.add_argument("--num-classes", type=int)
    command.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar="N",
        help="one size, or height and width",
    )


def add_settings(command):
    """Adds `--set`, further arguments of an architecture."""
    command.add_argument(
        "--set",
        nargs="+",
        type=setting,
        default=[],
        metavar="OPTION=VALUE",
        help="further arguments of an architecture, such as local_kernels=1,3",
    )


def setting(text):
    """An option's name and value."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier() and value):
        raise argparse.ArgumentTypeError(f"must be OPTION=VALUE, not {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def check_file(path, flag):
    """Refuse a file that could not be written at the end; `None` is none."""
    if path is None:
        return
    parent = path.absolute().parent
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(
            f"{flag} takes the path of a file in an existing folder that is writable. "
            f"Received: {str(path)!r}"
        )


def model_arguments(options):
    """The arguments of `kmlp.create_model` beside the name."""
    shape = None
    if options.image_size is not None:
        if len(options.image_size) > 2:
            raise InputError(
                "--image-size takes one size, or height and width. "
                f"Received: {options.image_size}"
            )
        shape = (options.image_size[0], options.image_size[-1], 3)
    return {"num_classes": options.num_classes, "input_shape": shape}
