"""Talk to a person at a terminal: our lines, none of the libraries' chatter."""

import contextlib
import csv
import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kmlp.errors import (
    InputError,
    Interrupted,
    KmlpError,
    RunError,
    TimeUp,
    check_choice,
)

NAMED = 3  # how many of many a message names


def _results_folder(root: Path, inside: str, outside: str) -> Path:
    """Return where results go: into a clone, or outside of one where a command runs."""
    is_clone = (root / "training" / "train.py").is_file()
    return root / inside if is_clone else Path(outside)


_ROOT = Path(__file__).resolve().parents[1]
SAVED_MODELS = _results_folder(_ROOT, "saved_models", "saved_models")
STUDIES = _results_folder(_ROOT, "training/logs/studies", "studies")


def first_line(error: BaseException) -> str:
    """Return an exception's first line, or its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def printable(text: str) -> str:
    """Return text in which what would command a terminal is shown as an escape."""
    escaped = (c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return "".join(escaped)


def some(names: Iterable[Any]) -> str:
    """Return the first few of many names, sorted."""
    names = sorted(map(str, names))
    return ", ".join(names[:NAMED]) + ", …" * (len(names) > NAMED) or "none"


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align rows of cells as text: `left` columns to the left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


FORMS = ("text", "csv", "markdown")


def table(
    header: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    form: str = "text",
    left: int = 1,
) -> str:
    """Return rows under a header, without a final line break.

    Args:
        header: Titles of the columns.
        rows: Sequences of as many cells. What is no string is written by `str`,
            `None` as an empty cell. Numbers for programs come without separators.
        form: Format, `"text"`, `"csv"` or `"markdown"`.
        left: Number of columns that are aligned left, where the form knows sides.

    Raises:
        InputError: If the form is unknown, or a row has another length.
    """
    check_choice(FORMS, form=form)
    cells = [["" if c is None else str(c) for c in row] for row in (header, *rows)]
    for row in cells:
        if len(row) != len(cells[0]):
            raise InputError(
                f"Each row needs {len(cells[0])} cells, one per column. Received: {row}"
            )
    if form == "text":
        return aligned(cells, left)
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(cells)
        return text.getvalue().removesuffix("\n")
    sides = ["---" if i < left else "---:" for i in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], f"|{'|'.join(sides)}|", *lines[1:]])


def exit_code(
    program: str, job: Callable[[], object], interrupted: str = "interrupted."
) -> int:
    """Run a command's job and turn its end into one line and an exit code.

    Args:
        program: Name of the command.
        job: Function without arguments.
        interrupted: Message after Ctrl-C.

    Returns:
        0 at the end of the work or of its time; 1 where it could not be finished; 2 for
        input that cannot be worked with; 128 and the signal's number after a signal.
        With `KMLP_DEBUG=1` in the environment the traceback is printed too.
    """
    for stream in (sys.stdout, sys.stderr):
        # Names of files may hold what no encoding can write.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        job()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe has gone; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(f"\n{program}: {interrupted}", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("KMLP_DEBUG") == "1":
            traceback.print_exc()
        message, code = _end(error)
        line = printable(" ".join(message.split()))
        print(f"{program}: {line}", file=sys.stderr)
        return code
    return 0


def _end(error):
    """Return the line and the exit code that an exception ends a command with."""
    if isinstance(error, TimeUp):
        return str(error), 0
    if isinstance(error, Interrupted):
        return str(error), 128 + error.signal
    if isinstance(error, RunError):
        return str(error), 1
    if isinstance(error, (KmlpError, OSError, ImportError)):
        return str(error), 2
    return (
        f"{type(error).__name__}: {first_line(error)[:300]} This is a fault of kmlp: "
        "please report it where you got kmlp from, with the command and what it prints "
        "with KMLP_DEBUG=1 in the environment."
    ), 1


def import_quietly(settle: bool = True, needed: bool = True) -> None:
    """Import TensorFlow and Keras without the lines that they write while loading.

    Args:
        settle: Whether TensorFlow looks for its devices now, after which they cannot
            be divided and workers cannot meet.
        needed: Whether TensorFlow is imported where it is not Keras' backend. If not,
            this process does without it, whoever asks for it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if not needed and os.environ["KERAS_BACKEND"] != "tensorflow":
        # Keras would import it as soon as it writes down a layer's arguments.
        sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
        return
    with quiet():
        import tensorflow as tf

        if settle:
            tf.config.list_logical_devices()
        # Here no module of ours is half imported, so that all classes that a file may
        # hold are registered.
        import keras  # noqa: F401
    tf.get_logger().setLevel("ERROR")


# Informational lines and warnings of absl and the converter, its dumps of graphs, and
# the lines of a machine without a GPU, which come as errors.
_CHATTER = re.compile(
    r"[IW]\d{4} |INFO: |WARNING: All log|fully_quantize: |<unknown>:|.*loc\(|"
    r'  %|  "func|"func|\^bb|\}\) |To enable the following|'
    r"E\d{4} .*(cuda|cuInit|oneDNN)|\s+\[\[\{\{node "
)


@contextlib.contextmanager
def quiet(everything: bool = False) -> Iterator[None]:
    """Hold back what is written to the process's standard error.

    TensorFlow reads its log level once, when it is imported, so that only the
    descriptor itself can be redirected. What is no chatter is shown at the end.

    Args:
        everything: Whether what is no chatter is dropped as well.
    """
    try:
        sys.stderr.flush()
        original = os.dup(2)
    except (OSError, ValueError, AttributeError):
        yield  # no standard error to keep clean
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if line and not (everything or _CHATTER.match(line)):
                    os.write(2, f"{line}\n".encode())


def progress_bar(
    total: int | None, unit: str, *, shown: bool = True, **options: Any
) -> Any:
    """Return a progress bar, which shows itself on a terminal only.

    Args:
        total: Number of units; `None` where it is unknown.
        unit: Name of a unit, such as `"image"`.
        shown: Whether there is a bar at all.
        **options: Further arguments of `tqdm`, such as `desc` and `initial`.
    """
    shown = shown and sys.stderr.isatty()
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    return tqdm(
        total=total,
        unit=unit,
        disable=not shown,
        leave=False,
        dynamic_ncols=True,
        **options,
    )


class _NoBar:
    """Answer as a bar does where `tqdm` is not installed."""

    def update(self, count: int = 1) -> None:
        pass

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        pass

    def close(self) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
