"""Open the networks of a plot, and write its figure."""

import argparse
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kmlp.atomic import new_file
from kmlp.commands.arguments import Parser, check_file, positive
from kmlp.console import table
from kmlp.errors import InputError


def add_output(parser: Parser, default: str) -> None:
    """Add `--out` and `--dpi`.

    Args:
        parser: Parser of the plot.
        default: Name of the file without its ending.
    """
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        metavar="FILE",
        default=Path(f"{default}.png"),
        help=f".png, .svg or .pdf (default: {default}.png)",
    )
    add("--dpi", type=positive, metavar="N", help="dots per inch of a PNG")


def check_output(options: argparse.Namespace) -> None:
    """Check that the plot can be drawn and written at the end.

    Raises:
        InputError: If the file cannot be written, or has another ending.
        ImportError: If matplotlib is not installed.
    """
    from kmlp.plots import style

    style.check_installed()
    path = options.out
    if path.suffix.lower() not in style.FORMATS:
        raise InputError(
            f"--out takes a file that ends in {', '.join(style.FORMATS)}. "
            f"Received: {str(path)!r}"
        )
    check_file(path, "--out")


def write(figure: Any, options: argparse.Namespace) -> None:
    """Write the figure and say where."""
    from kmlp.plots import style

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


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with the name that stands beside it.

    Attributes:
        label: Name of the architecture or folder; the path where two are alike.
        model: `keras.Model` in the form that was saved.
        preprocessing: `Preprocessing` of its images, or `None`.
    """

    label: str
    model: Any
    preprocessing: Any


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


def open_networks(weights: Sequence[str]) -> list[Network]:
    """Open networks by what `--weights` named, in order.

    Raises:
        InputError: If there is nothing such, or nothing that can be read.
    """
    from kmlp.pretrained.creation import create_model

    models = []
    for path in weights:
        check_trained(path)
        models.append(create_model(weights=path))
    return [
        Network(label, model, getattr(model, "preprocessing", None))
        for label, model in zip(labels_of(weights, models), models)
    ]


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
