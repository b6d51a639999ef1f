"""`kmlp convert`: a published checkpoint as a `.keras` file."""

import argparse
import json
from pathlib import Path

from kmlp.commands.arguments import add_settings, check_file


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser(
        "convert",
        help="a published checkpoint as a .keras file",
        description="Reads a checkpoint without running what it pickles, recognises "
        "the architecture, loads every array exactly once, and writes a .keras file "
        "that knows where it comes from.",
    )
    add = command.add_argument
    add(
        "source",
        metavar="SOURCE",
        help="a PyTorch, .safetensors, .npz or HDF5 file, or a name of "
        "`kmlp list --weights`",
    )
    add("target", metavar="TARGET.keras", type=Path)
    add("--arch", metavar="NAME", help="default: what names and shapes tell")
    add(
        "--num-classes",
        type=classes,
        metavar="N",
        help="of the head; another number than the file's makes a new classifier, 0 "
        "none (default: the file's)",
    )
    add(
        "--key",
        help="which of several states of the file, such as model_ema "
        "(default: model, state_dict, model_ema or state_dict_ema)",
    )
    add_settings(command)
    add(
        "--check",
        action="store_true",
        help="compare outputs with the source network in PyTorch before writing",
    )
    add("--overwrite", action="store_true", help="replace TARGET")
    add("--json", metavar="FILE", type=Path, help="the report as JSON too")
    command.set_defaults(job=run)


def run(options):
    """Converts and prints what became of the file."""
    check_file(options.json, "--json")
    from kmlp.artifacts.conversion import convert

    result = convert(
        options.source,
        options.target,
        arch=options.arch,
        num_classes=options.num_classes,
        key=options.key,
        settings=dict(options.set),
        check=options.check,
        overwrite=options.overwrite,
    )
    print(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result.as_data(), indent=1) + "\n")


def classes(text):
    """A number of classes, or 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number of classes, not {text!r}")
    return int(text)
