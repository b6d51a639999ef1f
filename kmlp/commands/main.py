"""Run a command: `kmlp NAME …`, or the script of `training/` that calls the same."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from kmlp.commands.arguments import Parser
from kmlp.commands.command_table import COMMANDS
from kmlp.console import exit_code
from kmlp.version import __version__


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
