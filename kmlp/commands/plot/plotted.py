"""The frame of a kind of plot: open its networks, draw, and write the figure."""

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kmlp.atomic import new_file
from kmlp.commands.arguments import Parser, check_file, positive
from kmlp.console import import_quietly, table
from kmlp.errors import InputError


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of plot.

    Attributes:
        help: Line of `kmlp plot --help`.
        add: Function that adds its own arguments to a parser.
        draw: Function of the options that yields the figure, or nothing where nothing
            is to be drawn. What comes after is run once the figure is written. Its
            docstring is what the kind's own help begins with.
        out: Name of the file without its ending; `None` for the kind's name.
    """

    help: str
    add: Callable[[Parser], None]
    draw: Callable[[argparse.Namespace], Iterator[Any]]
    out: str | None = None

    def add_arguments(self, parser: Parser, name: str) -> None:
        """Add all arguments and the job to the parser of `kmlp plot NAME`."""
        parser.description = self.draw.__doc__
        self.add(parser)
        out = f"{self.out or name}.png"
        parser.add_argument(
            "--out",
            type=Path,
            metavar="FILE",
            default=Path(out),
            help=f".png, .svg or .pdf (default: {out})",
        )
        parser.add_argument(
            "--dpi", type=positive, metavar="N", help="dots per inch of a PNG"
        )
        parser.set_defaults(job=self.run)

    def run(self, options: argparse.Namespace) -> None:
        """Draw and write the figure.

        Raises:
            InputError: If a file cannot be written, or has another ending.
            ImportError: If matplotlib is not installed.
        """
        from kmlp.plots import style

        style.check_installed()
        if options.out.suffix.lower() not in style.FORMATS:
            raise InputError(
                f"--out takes a file that ends in {', '.join(style.FORMATS)}. "
                f"Received: {str(options.out)!r}"
            )
        check_file(options.out, "--out")
        check_file(getattr(options, "csv", None), "--csv")
        import_quietly()
        for figure in self.draw(options):
            style.save(figure, options.out, options.dpi or style.DPI)
            print(f"written  {options.out}")


def write_csv(
    path: Path | None, header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Write a table of raw numbers and say where; `None` is nowhere."""
    if path is None:
        return
    with new_file(path) as draft:
        draft.write_text(table(header, rows, "csv") + "\n", encoding="utf-8")
    print(f"written  {path}")


def add_networks(parser: Parser, several: bool = True) -> None:
    """Add `--weights`, which may be given once for each network."""
    parser.add_argument(
        "--weights",
        required=True,
        action="append" if several else "store",
        metavar="NAME|FILE|FOLDER",
        help="a run's or a preset's folder, a .keras file, a published file or name "
        "(`kmlp list --weights`)" + "; once for each network" * several,
    )


def open_networks(weights: Sequence[str]) -> dict[str, Any]:
    """Open networks by what `--weights` named; return `{label: keras.Model}` in order.

    Raises:
        InputError: If there is nothing such, or nothing that can be read.
    """
    from kmlp.pretrained.creation import create_model

    models = []
    for path in weights:
        check_trained(path)
        models.append(create_model(weights=path))
    return dict(zip(labels_of(weights, models), models))


def check_trained(weights: str) -> None:
    """Refuse the name of an architecture, which has learned nothing yet."""
    from kmlp.models.papers import ABLATIONS
    from kmlp.models.registry import VARIANTS

    if not os.path.exists(weights) and weights in {**VARIANTS, **ABLATIONS}:
        raise InputError(
            "An architecture has learned nothing yet: pass a run's folder, a .keras "
            "file, or published weights by name and tag (`kmlp list --weights`). "
            f"Received: {weights!r}"
        )


def labels_of(weights: Sequence[str], models: Sequence[Any]) -> list[str]:
    """Return what stands beside networks; the path where two would be alike."""
    labels = [_label(path, model) for path, model in zip(weights, models)]
    return [
        label if labels.count(label) == 1 else str(path)
        for path, label in zip(weights, labels)
    ]


def _label(path, model):
    """Return `convmlp_s` of `saved_models/convmlp_s/1`; a published name stays."""
    from kmlp.artifacts.locating import run_name

    if not os.path.exists(path):
        return str(path)
    path = Path(path).resolve()
    name = path.stem if path.is_file() else run_name(path)
    return name if name != "trained" else model.name
