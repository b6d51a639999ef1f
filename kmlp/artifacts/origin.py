"""Write down within an artifact where it comes from, as JSON, and read it.

A checkpoint carries it as the member `origin.json` of its archive, a SavedModel as
`assets.extra/origin.json`, which servers copy and do not read, so does an OpenVINO
model, a TFLite or ONNX file among its metadata as `kmlp_origin`. It has the same keys
whatever made the artifact.

`weights_sha256` says which trained network an artifact is of, in any of its forms;
`artifact_sha256` is of all that lies in the artifact itself, which `verify` compares.
"""

import datetime
import hashlib
import importlib.metadata
import json
import platform
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmlp.analysis.complexity import count_parameters, profile
from kmlp.analysis.live_memory import weight_bytes
from kmlp.artifacts import flatbuffer, keras_file, onnx_file, origin_members
from kmlp.artifacts.locating import KERAS, ONNX, OPENVINO, SAVED_MODEL, TFLITE, locate
from kmlp.atomic import new_file
from kmlp.budget import archive, parse_json, read_member
from kmlp.console import first_line
from kmlp.errors import InputError, KmlpError, RunError
from kmlp.merging import dense_layers
from kmlp.models.configured import ConfiguredModel
from kmlp.typing import PathLike
from kmlp.version import __version__

FORMAT = 1
MEMBER = "origin.json"
FOLDER = "assets.extra"
METADATA = "kmlp_origin"
# Digest of an artifact, and what stands for its digits while it is computed.
DIGEST, _DIGITS = "artifact_sha256", "0" * 64
TRAIN_FORM, MERGED = "train form", "merged"
_PACKAGES = ("keras", "tensorflow", "numpy", "ai-edge-litert", "tf2onnx", "openvino")
# Entries that the maker of an artifact may add, and their values until then.
_EVIDENCE: dict[str, Any] = {
    "artifact": None,  # its kind and how it was made
    "equality": None,  # from `kmlp.artifacts.agreement.equality`
    "dense": None,  # from `dense_entry`
    "audit": None,  # from `kmlp.artifacts.operation_audit.audited`
    "accuracies": None,  # from `kmlp.artifacts.agreement.accuracies`
    "initial_weights": None,
    "frozen": [],
    "calibration": None,  # the images that showed int8 its ranges
    "compression": None,
}


def describe(
    model: keras.Model,
    *,
    form: str,
    preprocessing: Any = None,
    class_names: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Return what is known of a model before it becomes an artifact.

    Args:
        model: Trained model, built.
        form: What of it is written, `TRAIN_FORM` or `MERGED`.
        preprocessing: Preparation of the images, a `kmlp.preprocessing.Preprocessing`,
            or a `DensePreprocessing` of detectors and segmenters; `None`: the model's
            own, if it has one.
        class_names: Names in the order of the outputs; `None`: those of
            `preprocessing`.

    Returns:
        A dictionary that JSON can hold. `configuration` is `None` for models that are
        none of ours, whose class is named; so are multiply-adds that cannot be
        counted, and all that the maker of the artifact has yet to say.
    """
    ours = isinstance(model, ConfiguredModel)
    if preprocessing is None:
        preprocessing = getattr(model, "preprocessing", None)
    if class_names is None and preprocessing is not None:
        class_names = preprocessing.class_names
    found = {
        "format": FORMAT,
        "architecture": model.name,
        "class": f"{type(model).__module__}.{type(model).__name__}",
        "configuration": model.get_config() if ours else None,
        "form": form,
        "weights_sha256": weights_sha256(model),
        "parameters": {
            "trainable": count_parameters(model.trainable_weights),
            "non_trainable": count_parameters(model.non_trainable_weights),
        },
        "multiply_adds": _multiply_adds(model),
        "source": getattr(model, "weights_source", None),
        "preprocessing": None if preprocessing is None else preprocessing.as_json(),
        "class_names": None if class_names is None else list(class_names),
        "versions": versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **_EVIDENCE,
    }
    return _plain(found)


def dense_entry(
    plain: keras.Model, model: keras.Model, dense: str | None
) -> dict[str, Any] | None:
    """Return the origin's entry `dense`: costs as `[before, after]`, forms by layer.

    Args:
        plain: Merged model with its convolutions.
        model: The same without them.
        dense: Argument of `kmlp.merge` that made it; `None` gives `None`.
    """
    if dense is None:
        return None
    both, counted = (plain, model), [_multiply_adds(each) for each in (plain, model)]
    return {
        "choice": dense,
        "layers": dense_layers(model),
        "multiply_adds": None if None in counted else counted,
        "parameters": [count_parameters(each.weights) for each in both],
        "bytes": [weight_bytes(each) for each in both],
    }


def _multiply_adds(model):
    """Count them; `None` where sizes are open or the layers do not tell theirs."""
    try:
        return profile(model).macs
    except (ValueError, NotImplementedError):
        return None


def weights_sha256(model: keras.Model) -> str:
    """Return the SHA-256 of the values of all weights, in Keras' order.

    Names are left out: Keras numbers those of layers without a name anew in every
    process.
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{value.dtype.name}{list(value.shape)}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python, of this library and of what it stands on."""
    found = {"python": platform.python_version(), "kmlp": __version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "backend": keras.backend.backend()}


def of_keras(path: PathLike) -> dict[str, Any]:
    """Return when and by which Keras a checkpoint was written, as Keras noted it."""
    noted = keras_file.read_json(path, keras_file.METADATA)
    return {
        "versions": {"keras": noted.get("keras_version")},
        "created": noted.get("date_saved"),
    }


def read(path: PathLike) -> dict[str, Any] | None:
    """Return the origin that an artifact carries, `None` where it carries none.

    Args:
        path: Path as in `kmlp.artifacts.locating.locate`.

    Raises:
        InputError: If there is no artifact, its origin is damaged, or a member of it
            is not what it must be.
    """
    path, form = locate(path)
    try:
        text = _READERS[form](path)
        found = None if text is None else parse_json(text)
    except (KmlpError, ImportError):
        raise
    except Exception as error:  # of many kinds, where offsets lead astray
        raise InputError(
            "What this artifact says of its origin cannot be read: it is damaged; "
            f"export it again. Received: {str(path)!r} ({first_line(error)[:200]})"
        ) from error
    if found is not None:
        origin_members.check(found, origin_members.ORIGIN, path)
    return found


def write(path: PathLike, origin: dict[str, Any], **entries: Any) -> None:
    """Put an origin into an artifact, in place of the one it has.

    Args:
        path: Path of a file, or of the folder of a SavedModel or OpenVINO model.
        origin: Dictionary that JSON can hold.
        **entries: Entries in place of those of `origin`.

    Raises:
        InputError: If there is no artifact.
        OSError: If it cannot be written; the artifact stays as it was.
    """
    path, form = locate(path)
    text = json.dumps(_plain({**origin, **entries, DIGEST: _DIGITS}), indent=2)
    _WRITERS[form](path, f"{text}\n")


def add(path: PathLike, **entries: Any) -> None:
    """Add entries to an artifact's origin; equal names are replaced."""
    write(path, read(path) or {"format": FORMAT}, **entries)


def save_checkpoint(
    model: keras.Model,
    path: PathLike,
    *,
    form: str = TRAIN_FORM,
    preprocessing: Any = None,
    **entries: Any,
) -> None:
    """Save a model as a `.keras` file that carries its origin.

    Args:
        model: Model that is built.
        path: Path of the file.
        form: Form of the network, `TRAIN_FORM` or `MERGED`.
        preprocessing: How images are prepared; `None`: what the model knows.
        **entries: Further entries of the origin.
    """
    model.save(path)
    known = describe(model, form=form, preprocessing=preprocessing)
    write(path, known, artifact={"kind": KERAS}, **entries)


def verify(path: PathLike) -> str:
    """Compare an artifact with the digest that its origin has, and return that.

    Args:
        path: Path as in `kmlp.artifacts.locating.locate`.

    Raises:
        InputError: If there is no artifact, or it has no digest.
        RunError: If what lies there is not what was written.
    """
    path, form = locate(path)
    received = f"Received: {str(path)!r}"
    try:
        digest = (read(path) or {}).get(DIGEST)
        found = digest and _found_digest(path, form, digest)
    except ImportError:  # of what reads it, which says nothing of the artifact
        raise
    except Exception as error:
        raise RunError(
            f"This {form} is not what was written: it cannot be read any more; fetch "
            f"it again. {received} ({first_line(error)[:200]})"
        ) from error
    if not digest:
        raise InputError(
            f"This {form} has no digest to compare it with: it is of another program, "
            f"or of an earlier version of kmlp. {received}"
        )
    if found != digest:
        raise RunError(
            f"This {form} is not what was written: its content has sha256 {found}, "
            f"and {digest} was written; fetch it again. {received}"
        )
    return digest


def _digest(parts):
    """Return the hash of an artifact's parts, `(name, content)`."""
    digest = hashlib.sha256()
    for name, content in sorted(parts):
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _signed(text, digest, before=_DIGITS):
    """Return an origin's text, or a file with it, with other digits."""
    line = f'"{DIGEST}": "%s"'
    if isinstance(text, str):
        return text.replace(line % before, line % digest)
    return text.replace((line % before).encode(), (line % digest).encode())


def _plain(value):
    """Return a value as JSON has it."""
    return json.loads(json.dumps(value, default=str))


def _read_keras(path):
    with archive(path) as members:
        return read_member(members, MEMBER) if MEMBER in members.namelist() else None


def _write_keras(path, text):
    digest = _digest(_parts_of_keras(path, text))
    # Within an archive nothing can be replaced: the others are copied.
    with (
        new_file(path) as file,
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(file, "w") as new,
    ):
        for member in old.infolist():
            if member.filename != MEMBER:
                with old.open(member) as source, new.open(member, "w") as target:
                    shutil.copyfileobj(source, target)
        new.writestr(MEMBER, _signed(text, digest))


def _parts_of_keras(path, text):
    with archive(path) as members:
        for name in members.namelist():
            if name != MEMBER:
                yield name, read_member(members, name)
    yield MEMBER, text.encode()


def _read_folder(folder):
    file = folder / FOLDER / MEMBER
    return file.read_bytes() if file.is_file() else None


def _write_folder(folder, text):
    digest = _digest(_parts_of_folder(folder, text))
    with new_file(folder / FOLDER / MEMBER) as file:
        file.write_text(_signed(text, digest), "utf-8")


def files_of(folder: Path) -> Iterator[Path]:
    """Yield the files that a server loads of a version's folder."""
    names = ("saved_model.pb", "fingerprint.pb", "model.xml", "model.bin")
    yield from (folder / name for name in names)
    for name in ("variables", "assets", FOLDER):
        yield from (file for file in (folder / name).rglob("*") if file.is_file())


def _parts_of_folder(folder, text):
    for file in files_of(folder):
        if file.is_file() and file != folder / FOLDER / MEMBER:
            yield file.relative_to(folder).as_posix(), file.read_bytes()
    yield MEMBER, text.encode()


# Artifacts of one file, by the modules that know where their metadata lie.
_FILES = {TFLITE: flatbuffer, ONNX: onnx_file}


def _read_file(path):
    return _FILES[locate(path)[1]].metadata(path.read_bytes(), METADATA)


def _write_file(path, text):
    module = _FILES[locate(path)[1]]
    content = module.with_metadata(path.read_bytes(), METADATA, text.encode())
    digest = _digest([(METADATA, content)])
    with new_file(path) as file:
        Path(file).write_bytes(_signed(content, digest))


def _found_digest(path, form, digest):
    """Return the digest that an artifact has, where `digest` is written in it."""
    if form in _FILES:
        return _digest([(METADATA, _signed(path.read_bytes(), _DIGITS, digest))])
    text = _signed(_READERS[form](path).decode(), _DIGITS, digest)
    parts = _parts_of_keras if form == KERAS else _parts_of_folder
    return _digest(parts(path, text))


_READERS = {KERAS: _read_keras} | dict.fromkeys(_FILES, _read_file)
_READERS |= dict.fromkeys((SAVED_MODEL, OPENVINO), _read_folder)
_WRITERS = {KERAS: _write_keras} | dict.fromkeys(_FILES, _write_file)
_WRITERS |= dict.fromkeys((SAVED_MODEL, OPENVINO), _write_folder)
