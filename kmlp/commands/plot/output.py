"""Where a plot goes."""

from pathlib import Path

from kmlp.atomic import new_file
from kmlp.commands.arguments import check_file
from kmlp.console import positive
from kmlp.errors import InputError
from kmlp.tables import table


def add_output(command, default):
    """Adds `--out` and `--dpi`.

    Args:
        default: the file's name without its ending.
    """
    add = command.add_argument
    add(
        "--out",
        type=Path,
        metavar="FILE",
        default=Path(f"{default}.png"),
        help=f".png, .svg or .pdf (default: {default}.png)",
    )
    add("--dpi", type=positive, metavar="N", help="dots per inch of a PNG")


def check_output(options):
    """Raises `InputError` where the plot could not be drawn or written at the end.

    Raises:
        ImportError: matplotlib is not installed.
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


def write(figure, options):
    """Writes the figure and says where."""
    from kmlp.plots import style

    style.save(figure, options.out, options.dpi or style.DPI)
    print(f"written  {options.out}")


def write_csv(path, header, rows):
    """Writes a table of raw numbers and says where; `None` is nowhere."""
    if path is None:
        return
    with new_file(path) as draft:
        draft.write_text(table(header, rows, "csv") + "\n", encoding="utf-8")
    print(f"written  {path}")
