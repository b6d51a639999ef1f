"""Read what runs wrote down: their curves as they went, and what they reached."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from kmlp.analysis.efficiency import Cost
from kmlp.artifacts.curve_files import read_columns
from kmlp.artifacts.locating import (
    CHECKPOINT,
    HISTORY,
    REPORT,
    STEPS,
    UNFINISHED,
    newest,
    run_name,
)
from kmlp.errors import InputError
from kmlp.typing import PathLike

ROWS = "rows"
WHAT = (
    f"A run's folder holds {HISTORY} after its first epoch, also while it runs "
    f"({UNFINISHED}…); a folder of its versions and a study's folder do too"
)
_REPORTED = f"A finished run of a classifier has a {REPORT} with its accuracy"


# The scores that a run is judged by: the first that it has.
SCORES = ("val_top1", "val_mIoU", "val_mask_AP", "val_AP")


@dataclasses.dataclass(frozen=True)
class Curves:
    """The curves of one run.

    Attributes:
        label: Name beside other runs.
        path: Path of the file that holds its epochs.
        epochs: Curves `{column: values}`, an entry per epoch; `nan` where one says
            nothing.
        steps: The same of its steps, every so many; empty where none were kept.
    """

    label: str
    path: Path
    epochs: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]

    @property
    def minutes(self) -> np.ndarray | None:
        """Return the minutes of training and validation at the end of each epoch."""
        seconds = self.epochs.get("seconds")
        return None if seconds is None else np.cumsum(np.nan_to_num(seconds)) / 60

    @property
    def score(self) -> str | None:
        """Return the column that the run is judged by, `None` where it has none."""
        return next((name for name in SCORES if name in self.epochs), None)

    @property
    def steps_per_epoch(self) -> float:
        """Return the steps per epoch, from the first recorded one."""
        return self.epochs["step"][0] / self.epochs["epoch"][0]


def read_runs(folders: Iterable[PathLike]) -> list[Curves]:
    """Return the curves of runs, in order, each with a label of its own.

    Args:
        folders: Folders of runs, of versions of which the newest counts, or of
            studies, each row of which is a run; a `history.csv` itself will do.

    Raises:
        InputError: If there are no curves, or a file holds none.
        OSError: If a file cannot be read.
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
    epochs = read_columns(path)
    if not {"epoch", "step"} <= set(epochs) or not len(epochs["epoch"]):
        raise InputError(
            f"{WHAT}; this file is none: it has no rows with `epoch` and `step`. "
            f"Received: {str(path)!r}"
        )
    steps = path.with_name(STEPS)
    taken = read_columns(steps) if path.name == HISTORY and steps.is_file() else {}
    return Curves(label, path, epochs, taken)


def _labels(paths):
    """Return the shortest names of folders, and versions, that tell runs apart."""
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
    """Return `(names of folders, version, further words on the run)`."""
    parts = path.resolve().parent.parts[1:]
    *above, last = parts or ("run",)
    if above and last.isdecimal():
        return above, last, ""
    if above and last.startswith(UNFINISHED):
        return above, last.removeprefix(UNFINISHED), " (unfinished)"
    if len(above) > 1 and above[-1] == ROWS and path.name != HISTORY:
        return [*above[:-1], last], "", ""  # a study's row
    return parts, "", ""


def read_cost(folder: PathLike, activations: bool = False) -> Cost:
    """Return what a finished run's network costs and reaches.

    Args:
        folder: Folder of the run, or of its versions, of which the newest counts.
        activations: Whether they are counted, for which the network is opened.

    Returns:
        The cost with the folder's name; its top-1 is the trained network's on the
        run's validation images.

    Raises:
        InputError: If there is no report, or one without an accuracy.
        OSError: If the report cannot be read.
    """
    folder = Path(folder).expanduser()
    path = newest(folder) / REPORT if folder.is_dir() else folder / REPORT
    if not path.is_file():
        raise InputError(f"{_REPORTED}; there is none here. Received: {str(folder)!r}")
    try:
        report = json.loads(path.read_text("utf-8"))
        trained, data = report["forms"]["trained"], report["data"]
        top1 = 100 * float(trained["accuracy"])
        parameters = int(trained["trainable_parameters"])
        macs = int(trained["multiply_adds"])
        size = tuple(report["arguments"]["input_shape"][:2])
        name = str(data["name"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{_REPORTED}; this one has none that can be read ({error!r}). "
            f"Received: {str(path)!r}"
        ) from error
    folder = path.parent
    return Cost(
        name=run_name(folder) or report.get("architecture", str(folder)),
        image_size=size,
        parameters=parameters,
        macs=macs,
        activations=_activations(folder / CHECKPOINT) if activations else None,
        top1=top1,
        data=name,
    )


def _activations(checkpoint):
    from kmlp.analysis.complexity import profile
    from kmlp.pretrained.creation import create_model

    return profile(create_model(weights=checkpoint)).activations
