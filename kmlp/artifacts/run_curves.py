"""What runs wrote down as they went."""

import csv
import dataclasses
from pathlib import Path

import numpy as np

from kmlp.artifacts.locating import newest
from kmlp.errors import InputError

HISTORY, STEPS, ROWS = "history.csv", "steps.csv", "rows"
UNFINISHED = "unfinished-"
WHAT = (
    f"A run's folder holds {HISTORY} after its first epoch, also while it runs "
    f"({UNFINISHED}…); a folder of its versions and a study's folder do too"
)


# What a run is judged by: the first that it has.
SCORES = ("val_top1", "val_mIoU", "val_mask_AP", "val_AP")


@dataclasses.dataclass(frozen=True)
class Curves:
    """One run.

    Attributes:
        label: what it is called beside other runs.
        path: of the file that holds its epochs.
        epochs: `{column: values}`, an entry per epoch; `nan` where one says nothing.
        steps: the same of its steps, every so many; empty where none were kept.
    """

    label: str
    path: Path
    epochs: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]

    @property
    def minutes(self):
        """Of training and validation, at the end of each epoch."""
        seconds = self.epochs.get("seconds")
        return None if seconds is None else np.cumsum(np.nan_to_num(seconds)) / 60

    @property
    def score(self):
        """The column that the run is judged by, `None` where it has none."""
        return next((name for name in SCORES if name in self.epochs), None)

    @property
    def steps_per_epoch(self):
        return self.epochs["step"][0] / self.epochs["epoch"][0]


def read_runs(folders):
    """The curves of runs, in order.

    Args:
        folders: of runs, of versions of which the newest counts, or of studies, each
            row of which is a run; a `history.csv` itself will do.

    Returns:
        A list of `Curves`, each with a label of its own.

    Raises:
        InputError: no curves there, or a file that holds none.
        OSError: a file cannot be read.
    """
    paths = [path for folder in map(Path, folders) for path in _histories(folder)]
    return [_read(path, label) for path, label in zip(paths, _labels(paths))]


def _histories(folder):
    folder = folder.expanduser()
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(f"{WHAT}; this does not exist. Received: {str(folder)!r}")
    if (folder / ROWS).is_dir():
        # A row that is trained again has a newer file.
        rows = (row.glob("*.csv") for row in (folder / ROWS).iterdir())
        finished = [max(files, key=_age, default=None) for files in rows]
        if any(finished):
            return sorted(filter(None, finished), key=_age)
    unfinished = sorted(folder.glob(f"{UNFINISHED}*"), key=_age, reverse=True)
    for choice in (newest(folder), folder, *unfinished):
        if (choice / HISTORY).is_file():
            return [choice / HISTORY]
    raise InputError(f"{WHAT}; there is none here. Received: {str(folder)!r}")


def _age(path):
    return path.stat().st_mtime


def _read(path, label):
    epochs = _columns(path)
    if not {"epoch", "step"} <= set(epochs) or not len(epochs["epoch"]):
        raise InputError(
            f"{WHAT}; this file is none: it has no rows with `epoch` and `step`. "
            f"Received: {str(path)!r}"
        )
    steps = path.with_name(STEPS)
    taken = _columns(steps) if path.name == HISTORY and steps.is_file() else {}
    return Curves(label, path, epochs, taken if "step" in taken else {})


def _columns(path):
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        # A run that goes on while it is read may have half a line at the end.
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    names = [name for name in (rows[0] if rows else ()) if name is not None]
    return {name: np.array([_number(row[name]) for row in rows]) for name in names}


def _number(text):
    try:
        return float(text)
    except ValueError:
        return np.nan


def _labels(paths):
    """The shortest names that tell runs apart: of folders, with versions if needed."""
    runs = [_parts(path) for path in paths]
    labels = []
    for length in range(1, max((len(parts) for parts, *_ in runs), default=1) + 1):
        names = [("/".join(parts[-length:]), *rest) for parts, *rest in runs]
        short = [name + mark for name, _, mark in names]
        long = ["/".join(filter(None, (n, v))) + mark for n, v, mark in names]
        for labels in (short, long):
            if len(set(labels)) == len(labels):
                return labels
    return [f"{label} ({number})" for number, label in enumerate(labels, 1)]


def _parts(path):
    """`(names of folders, version, what is said of the run besides)`."""
    parts = path.resolve().parent.parts[1:]
    *above, last = parts or ("run",)
    if above and last.isdecimal():
        return above, last, ""
    if above and last.startswith(UNFINISHED):
        return above, last.removeprefix(UNFINISHED), " (unfinished)"
    if len(above) > 1 and above[-1] == ROWS and path.name != HISTORY:
        return [*above[:-1], last], "", ""  # a study's row
    return parts, "", ""
