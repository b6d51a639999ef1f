"""`kmlp convert`: a published checkpoint as a `.keras` file."""

from pathlib import Path

from kmlp.commands.arguments import (
    Parser,
    add_settings,
    check_file,
    classes,
    write_json,
)
from kmlp.console import quiet


def add_arguments(parser: Parser) -> None:
    """Add the arguments and the job."""
    parser.description = (
        "Reads a checkpoint without running what it pickles, recognises "
        "the architecture, loads every array exactly once, and writes a .keras file "
        "that knows where it comes from."
    )
    add = parser.add_argument
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
    add_settings(parser)
    add(
        "--check",
        action="store_true",
        help="compare outputs with the source network in PyTorch before writing",
    )
    add("--overwrite", action="store_true", help="replace TARGET")
    add("--json", metavar="FILE", type=Path, help="the report as JSON too")
    parser.set_defaults(job=_run)


def _run(options):
    check_file(options.json, "--json")
    with quiet():  # Keras loads its backend
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
    write_json(options.json, result.as_data())
