"""The commands of `kmlp`: where each one is, and its line of help.

Only the command that was asked for is imported. This is why the table holds strings.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Entry:
    """A command in the table.

    Attributes:
        path: `module:function` of what adds its arguments and its job to a parser.
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
        return getattr(importlib.import_module(f"kmlp.commands.{module}"), function)


COMMANDS = {
    "list": Entry("listing:add_arguments", "architectures and weights by name"),
    "info": Entry(
        "info:add_arguments", "costs of an architecture, origin of an artifact"
    ),
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
    "probe": Entry("probe:add_arguments", "judge frozen features", "kmlp probe"),
    "compress": Entry(
        "compress:add_arguments",
        "prune, cluster or quantise while fine-tuning",
        "kmlp compress",
    ),
    "convert": Entry(
        "convert:add_arguments", "a published checkpoint as a .keras file"
    ),
    "predict": Entry(
        "predict:add_arguments", "what images show: classes, objects or class maps"
    ),
    "benchmark": Entry(
        "benchmark:add_arguments",
        "images per second: every form of a network, or several backends",
    ),
    "benchmark-input": Entry(
        "benchmark_input:add_arguments",
        "images per second of the input pipeline",
        "kmlp benchmark-input",
    ),
    "plot": Entry("plot:add_arguments", "what networks learned and cost, as pictures"),
    "export": Entry("export:add_arguments", "a checkpoint for serving or edge"),
    "audit": Entry("info:add_audit", "operations of an artifact"),
    "serving": Entry("serving:add_arguments", "check an artifact; ask a server"),
}
