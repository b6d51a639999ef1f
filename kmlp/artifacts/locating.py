"""Find a trained network on a disk, in a form that is told by what it holds."""

from pathlib import Path

from kmlp.console import first_line
from kmlp.errors import InputError
from kmlp.typing import PathLike

FORMS = (
    "WEIGHTS is a .keras checkpoint, a SavedModel folder, a .tflite or .onnx file, an "
    "OpenVINO model's folder or a run's version folder"
)
KERAS, SAVED_MODEL, TFLITE = ".keras checkpoint", "SavedModel", "TFLite file"
ONNX, OPENVINO = "ONNX file", "OpenVINO model"
# What says that a folder is an artifact, and which.
_FOLDERS = {"saved_model.pb": SAVED_MODEL, "model.xml": OPENVINO}
# What a run's folder holds, and how it is called until the run is done.
CHECKPOINT, REPORT = "trained.keras", "report.json"
HISTORY, STEPS = "history.csv", "steps.csv"
UNFINISHED = "unfinished-"
# The bytes that a file begins with, their offset, and its form.
_MAGIC = ((4, b"TFL3", TFLITE), (0, b"PK\x03\x04", KERAS), (0, b"\x89HDF", "HDF5 file"))


def locate(path: PathLike) -> tuple[Path, str]:
    """Return the weights that a path stands for.

    Args:
        path: Path of a file, or of a folder: a SavedModel, an OpenVINO model, a run's
            version (its SavedModel, or else its `trained.keras`) or the folder of
            versions (the newest).

    Returns:
        Tuple `(path, form)`: the file or the artifact's folder, and one of `KERAS`,
        `SAVED_MODEL`, `TFLITE`, `ONNX`, `OPENVINO`.

    Raises:
        InputError: If there is nothing such.
    """
    found = Path(path).expanduser()
    if found.name in _FOLDERS and found.is_file():
        found = found.parent
    if found.is_dir():
        found = _in_folder(found)
    if not found.exists():
        raise InputError(f"{FORMS}; this does not exist. Received: {str(found)!r}")
    return found, (folder_form(found) if found.is_dir() else None) or _form(found)


def folder_form(folder: Path) -> str | None:
    """Return what a folder itself is, `SAVED_MODEL` or `OPENVINO`, or `None`."""
    forms = (form for name, form in _FOLDERS.items() if (folder / name).is_file())
    return next(forms, None)


def locate_checkpoint(path: PathLike) -> Path:
    """Return the `.keras` file that a path stands for: the file, or a run's.

    Raises:
        InputError: If there is nothing such.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = newest(path)
        if not (path / CHECKPOINT).is_file():
            raise InputError(
                f"A run's folder holds {CHECKPOINT}, and this does not: pass a run's "
                f"folder or a .keras file. Received: {str(path)!r}"
            )
        path = path / CHECKPOINT
    path, form = locate(path)
    if form != KERAS:
        raise InputError(
            "This job starts from a .keras checkpoint or a run's folder. "
            f"Received: {str(path)!r}, a {form}"
        )
    return path


def artifacts_of(path: PathLike) -> list[Path]:
    """Return all artifacts that a path stands for: of a run's folder, all in it.

    Raises:
        InputError: If there is none.
    """
    first, _ = locate(path)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return [first]
    folder = newest(folder)
    files = [file for file in folder.iterdir() if is_artifact(file)]
    return [*([first] if first.is_dir() else []), *sorted(files)]


def is_artifact(path: Path) -> bool:
    """Return whether a file is a checkpoint or an artifact of one file, by its name."""
    return path.suffix in (".keras", ".tflite", ".onnx")


def newest(folder: Path) -> Path:
    """Return the newest version in a folder of versions, any other folder as it is."""
    if folder_form(folder) or (folder / CHECKPOINT).is_file():
        return folder
    versions = [p for p in folder.iterdir() if p.name.isdecimal() and p.is_dir()]
    return max(versions, key=lambda p: int(p.name)) if versions else folder


def run_name(path: Path) -> str:
    """Return the name of a run's folder: of a version, of the folder of versions."""
    return path.parent.name if path.name.isdecimal() else path.name


def _in_folder(folder):
    folder = newest(folder)
    if folder_form(folder):
        return folder
    if (folder / CHECKPOINT).is_file():
        return folder / CHECKPOINT
    raise InputError(
        f"{FORMS}; this folder has none of {', '.join(_FOLDERS)} and {CHECKPOINT}, and "
        f"no versions. Received: {str(folder)!r}"
    )


def _archive_form(path):
    """Return the form of a zip file; one that is damaged is for its reader to tell."""
    from kmlp.weights.checkpoint_forms import NPZ, TORCH, form_of

    try:
        form = form_of(path)
    except InputError:
        return KERAS
    return form if form in (NPZ, TORCH) else KERAS


def _form(path):
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f"{FORMS}; {error}") from error
    # A protocol buffer has no magic number.
    if path.suffix == ".onnx" and start:
        return ONNX
    for offset, magic, form in _MAGIC:
        if not start[offset:].startswith(magic):
            continue
        if form == KERAS:
            form = _archive_form(path)
        if form in (KERAS, TFLITE):
            return form
        raise InputError(
            f"{FORMS}; this {form} holds weights without their network: `kmlp "
            "convert` makes a .keras of published ones; load others into their model "
            f"and save that as .keras. Received: {str(path)!r}"
        )
    found = "neither of them" if start else "empty"
    raise InputError(f"{FORMS}; this file is {found}. Received: {str(path)!r}")


def unreadable(form: str, path: PathLike, error: BaseException) -> InputError:
    """Return the error of an artifact that is damaged.

    Args:
        form: Form as `locate` tells it.
        path: Path of the artifact.
        error: Exception that reading it raised.
    """
    return InputError(
        f"This {form} cannot be read: copy it again, or export it again. "
        f"Received: {str(path)!r} ({first_line(error)[:200]})"
    )
