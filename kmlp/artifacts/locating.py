"""The forms in which a trained network lies on a disk, told by what they hold."""

from pathlib import Path

from kmlp.errors import InputError

FORMS = (
    "WEIGHTS is a .keras checkpoint, a SavedModel folder, a .tflite file or a run's "
    "version folder"
)
KERAS, SAVED_MODEL, TFLITE = ".keras checkpoint", "SavedModel", "TFLite file"
CHECKPOINT = "trained.keras"
# What a file begins with, from which byte, and what it is.
_MAGIC = ((4, b"TFL3", TFLITE), (0, b"PK\x03\x04", KERAS), (0, b"\x89HDF", "HDF5 file"))


def locate(path):
    """The weights that a path stands for.

    Args:
        path: of a file, or of a folder: a SavedModel, a run's version (its SavedModel,
            or else its `trained.keras`) or the folder of versions (the newest).

    Returns:
        `(path, form)`: the file or the SavedModel's folder, and one of `KERAS`,
        `SAVED_MODEL`, `TFLITE`.

    Raises:
        InputError: there is nothing such.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = _in_folder(path)
    if not path.exists():
        raise InputError(f"{FORMS}; this does not exist. Received: {str(path)!r}")
    return path, SAVED_MODEL if path.is_dir() else _form(path)


def locate_checkpoint(path):
    """The `.keras` file that a path stands for: the file, or a run's.

    Raises:
        InputError: there is nothing such.
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


def newest(folder):
    """The newest version in a folder of versions, any other folder as it is."""
    if any((folder / name).is_file() for name in ("saved_model.pb", CHECKPOINT)):
        return folder
    versions = [p for p in folder.iterdir() if p.name.isdecimal() and p.is_dir()]
    return max(versions, key=lambda p: int(p.name)) if versions else folder


def run_name(path):
    """What a run's folder is called: of a version, the folder of the versions."""
    return path.parent.name if path.name.isdecimal() else path.name


def _in_folder(folder):
    folder = newest(folder)
    if (folder / "saved_model.pb").is_file():
        return folder
    if (folder / CHECKPOINT).is_file():
        return folder / CHECKPOINT
    raise InputError(
        f"{FORMS}; this folder has neither saved_model.pb nor {CHECKPOINT} nor "
        f"versions. Received: {str(folder)!r}"
    )


def _form(path):
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f"{FORMS}; {error}") from error
    for offset, magic, form in _MAGIC:
        if start[offset:].startswith(magic) and form in (KERAS, TFLITE):
            return form
        if start[offset:].startswith(magic):
            raise InputError(
                f"{FORMS}; an {form} holds weights without their network: load it "
                f"into its model and save that as .keras. Received: {str(path)!r}"
            )
    found = "neither of them" if start else "empty"
    raise InputError(f"{FORMS}; this file is {found}. Received: {str(path)!r}")
