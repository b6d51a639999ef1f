"""From a trained model to a version folder that was checked as a whole."""

import contextlib
import json
import os
import shutil

import keras

import kmlp
from kmlp.atomic import new_version
from training.console import Stop

TRAINED, MERGED, SAVED_MODEL, TFLITE = "trained", "merged", "SavedModel", "TFLite"


def publish(model, batches, folder, *, details, keep=(), best=None):
    """Merges and exports a trained model and checks every form of it.

    The version holds the SavedModel, `model.tflite`, `trained.keras` (the train
    form), `report.json` and what the run wrote; it appears as a whole or not at all.
    Without TensorFlow as Keras' backend nothing is exported.

    Args:
        model: the trained model, in float32 and never compiled.
        batches: of validation images, on which the forms are compared.
        folder: of the versions.
        details: of the run, the first entries of the report.
        keep: files and folders of the run to put beside.
        best: a second model, saved as `best.keras`, or `None`.

    Returns:
        `(path of the version, report)`.

    Raises:
        Stop: a form disagrees with the trained model, or cannot be written.
    """
    exports = keras.backend.backend() == "tensorflow"
    with _failures(exports), new_version(folder) as draft:
        report = {**details, "forms": {}}
        if exports:
            report["forms"] = _export(model, batches, draft.folder)
        for path in keep:
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, draft.folder / path.name)
        trained = draft.folder / "trained.keras"
        model.save(trained)
        if exports:
            report["forms"][TRAINED]["bytes"] = _size(trained)
        if best is not None:
            best.save(draft.folder / "best.keras")
        (draft.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return draft.path, report


@contextlib.contextmanager
def _failures(exports):
    """What cannot be written ends the job with one line."""
    errors = (OSError,)
    if exports:
        import tensorflow as tf

        errors += (tf.errors.OpError,)
    try:
        yield
    except errors as error:
        raise Stop(
            f"Nothing was published, and the trained state is kept: {error}", code=1
        ) from error


def _export(model, batches, folder):
    """Writes the artifacts; the figures of every form."""
    from kmlp.export import audit
    from kmlp.export.running import load_saved_model, load_tflite, run_model
    from kmlp.export.saved_model import inference_form, write_saved_model
    from kmlp.export.tflite import check_options, write_tflite
    from training.comparison import check_agreement, compare, latency

    merged = inference_form(model)
    tflite = folder / "model.tflite"
    write_saved_model(merged, folder)
    saved_model_bytes = _size(folder)
    write_tflite(merged, tflite, **check_options(model))
    forms = compare(
        {
            TRAINED: lambda images: run_model(model, images),
            MERGED: lambda images: run_model(merged, images),
            SAVED_MODEL: load_saved_model(folder),
            TFLITE: load_tflite(tflite, num_threads=os.cpu_count()),
        },
        batches,
    )
    check_agreement(forms)
    milliseconds = latency({TRAINED: model, MERGED: merged})
    for name, form in ((TRAINED, model), (MERGED, merged)):
        profile = kmlp.profile(form)
        forms[name] |= {
            "trainable_parameters": profile.trainable,
            "non_trainable_parameters": profile.non_trainable,
            "multiply_adds": profile.macs,
            "latency_ms": milliseconds[name],
        }
    for name, path in ((SAVED_MODEL, folder), (TFLITE, tflite)):
        operations = audit(path)
        forms[name] |= {
            "bytes": _size(path) if name == TFLITE else saved_model_bytes,
            "fully_connected_only": operations.fully_connected_only,
            "operations": dict(operations),
        }
    return forms


def _size(path):
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)
