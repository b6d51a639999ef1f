"""Run a command: `kmlp NAME …`, or the script of `training/` that calls the same.

Only the command that was asked for is imported. This is why the table of commands holds
strings.
"""

import argparse
import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from kmlp.commands.arguments import Parser
from kmlp.console import exit_code
from kmlp.version import __version__


@dataclasses.dataclass(frozen=True)
class Entry:
    """A command in the table.

    Attributes:
        path: Path `module:function` of the function that adds its arguments and its job
            to a parser; `add_arguments` by default.
        help: Line of `kmlp --help`.
        program: Name that begins its lines on standard error. A trainer's lines name
            the command, as those of its script name the file.
    """

    path: str
    help: str
    program: str = "kmlp"

    def load(self) -> Callable[[Any], None]:
        """Import the function."""
        module, _, function = self.path.partition(":")
        found = importlib.import_module(f"kmlp.commands.{module}")
        return getattr(found, function or "add_arguments")


COMMANDS = {
    "list": Entry("listing", "architectures and weights by name"),
    "info": Entry("info", "costs of an architecture, origin of an artifact"),
    "data": Entry("data", "check a data set", "kmlp data"),
    "train": Entry(
        "train:add_command",
        "train a classifier, a detector or a segmenter",
        "kmlp train",
    ),
    "study": Entry(
        "train:add_study",
        "train a paper's table of ablations, row by row",
        "kmlp study",
    ),
    "evaluate": Entry(
        "evaluate:add_command",
        "accuracy, AP or mean IoU of trained weights",
        "kmlp evaluate",
    ),
    "probe": Entry("probe", "judge frozen features", "kmlp probe"),
    "compress": Entry(
        "compress", "prune, cluster or quantise while fine-tuning", "kmlp compress"
    ),
    "convert": Entry("convert", "a published checkpoint as a .keras file"),
    "predict": Entry("predict", "what images show: classes, objects or class maps"),
    "benchmark": Entry(
        "benchmark", "images per second: every form of a network, or several backends"
    ),
    "benchmark-input": Entry(
        "benchmark_input",
        "images per second of the input pipeline",
        "kmlp benchmark-input",
    ),
    "plot": Entry("plot", "what networks learned and cost, as pictures"),
    "export": Entry("export", "a checkpoint for serving or edge"),
    "audit": Entry("info:add_audit", "operations of an artifact"),
    "verify": Entry("info:add_verify", "whether an artifact is what was written"),
    "serving": Entry("serving", "check an artifact; ask a server"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `kmlp` with its arguments, by default the process's.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(argv)
    return _run(options, COMMANDS[options.command].program)


def enter() -> NoReturn:
    """Run `kmlp` as a process."""
    leave(main())


def leave(code: int) -> NoReturn:
    """End the process; one of several that failed does not wait for the others."""
    if code and os.environ.get("TF_CONFIG"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@dataclasses.dataclass(frozen=True)
class Script:
    """A script of `training/`, which calls a command from a clone.

    Attributes:
        program: Name of the file.
        add_arguments: Function that adds arguments and job to a parser.
    """

    program: str
    add_arguments: Callable[[Parser], None]

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Return the options; wrong ones end the process with code 2."""
        call = f"python training/{self.program}"
        parser = Parser(prog=self.program, call=call)
        self.add_arguments(parser)
        return parser.parse_args(argv)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the script and return its exit code."""
        return _run(self.parse(argv), self.program)

    def enter(self) -> NoReturn:
        """Run the script as a process."""
        leave(self.main())


class _CommandParser(Parser):
    """A parser that gets its arguments when it is the one to parse."""

    def __init__(self, *arguments, entry, **options):
        super().__init__(*arguments, **options)
        self._entry = entry

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._entry is not None:
            entry, self._entry, self.words = self._entry, None, tuple(args)
            entry.load()(self)
        options, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return options, rest


def _parser():
    parser = Parser(
        prog="kmlp",
        description="Vision MLPs in Keras: look up, load, train, measure, export.",
    )
    parser.add_argument("--version", action="version", version=f"kmlp {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, parser_class=_CommandParser
    )
    for name, entry in COMMANDS.items():
        commands.add_parser(name, help=entry.help, entry=entry)
    return parser


def _run(options, program):
    # Must stand before TensorFlow is imported, which the jobs do.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    words = vars(options).get("interrupted", "interrupted.")
    return exit_code(program, lambda: options.job(options), words)
