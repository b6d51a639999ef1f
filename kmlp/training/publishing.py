"""From a trained model to a version folder that was checked as a whole."""

import contextlib
import json
import os
import shutil

import keras

import kmlp
from kmlp.artifacts import origin
from kmlp.artifacts.locating import CHECKPOINT
from kmlp.atomic import new_version
from kmlp.errors import RunError

TRAINED, MERGED, SAVED_MODEL, TFLITE = "trained", "merged", "SavedModel", "TFLite"
# Where training began, and what of the network kept what it began with.
BEGUN = ("initial_weights", "frozen")


def publish(model, batches, folder, *, preprocessing, details, keep=(), best=None):
    """Merges and exports a trained model and checks every form of it.

    The version holds the SavedModel, `model.tflite`, `trained.keras` (the train
    form), `report.json` and what the run wrote; it appears as a whole or not at all.
    Each of the first three carries its origin (`kmlp.artifacts.origin`), with the
    details of `BEGUN`. Without TensorFlow as Keras' backend nothing is exported.

    Args:
        model: the trained model, in float32 and never compiled.
        batches: of validation images, on which the forms are compared.
        folder: of the versions.
        preprocessing: `kmlp.preprocessing.Preprocessing` of the images.
        details: of the run, the first entries of the report.
        keep: files and folders of the run to put beside.
        best: a second model, saved as `best.keras`, or `None`.

    Returns:
        `(path of the version, report)`.

    Raises:
        InputError: a form disagrees with the trained model, or cannot be written.
    """
    exports = keras.backend.backend() == "tensorflow"
    with failures(exports), new_version(folder) as draft:
        report = {**details, "forms": {}}
        begun = {name: details[name] for name in BEGUN if details.get(name)}
        if exports:
            report["forms"] = _export(
                model, batches, draft.folder, preprocessing, begun
            )
        for path in keep:
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, draft.folder / path.name)
        trained = draft.folder / CHECKPOINT
        _save(model, trained, preprocessing, begun, report["forms"].get(TRAINED))
        if exports:
            report["forms"][TRAINED]["bytes"] = size_of(trained)
        if best is not None:
            # The comparison was with the other weights, or with these as that file.
            _save(best, draft.folder / "best.keras", preprocessing, begun, None)
        (draft.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return draft.path, report


@contextlib.contextmanager
def failures(exports):
    """What cannot be written ends the job with one line."""
    errors = (OSError,)
    if exports:
        import tensorflow as tf

        errors += (tf.errors.OpError,)
    try:
        yield
    except errors as error:
        raise RunError(
            f"Nothing was published, and the trained state is kept: {error}"
        ) from error


def _save(model, path, preprocessing, begun, form):
    """A checkpoint that carries its origin."""
    model.save(path)
    described = origin.describe(
        model, form=origin.TRAIN_FORM, preprocessing=preprocessing
    )
    accuracies = None if form is None else _accuracies(form)
    origin.write(path, {**described, **begun, "accuracies": accuracies})


def _accuracies(form, trained=None):
    """The origin's entry of this name."""
    of_trained = {} if trained is None else {"trained_top1": trained["accuracy"]}
    return {"images": form["images"], "top1": form["accuracy"], **of_trained}


def _export(model, batches, folder, preprocessing, begun):
    """Writes the artifacts; the figures of every form."""
    from kmlp.artifacts.running import load_saved_model, load_tflite, run_model
    from kmlp.export.evidence import audited
    from kmlp.export.saved_model import inference_form, write_saved_model
    from kmlp.export.tflite import check_options, write_tflite
    from kmlp.training.comparison import check_agreement, compare, latency

    merged = inference_form(model)
    tflite = folder / "model.tflite"
    write_saved_model(merged, folder, preprocessing=preprocessing)
    saved_model_bytes = size_of(folder)
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
    described = origin.describe(model, form=origin.MERGED, preprocessing=preprocessing)
    for name, path in ((SAVED_MODEL, folder), (TFLITE, tflite)):
        audit = audited(path)
        forms[name] |= {
            "bytes": size_of(path) if name == TFLITE else saved_model_bytes,
            **audit,
        }
        entries = {
            "artifact": {"kind": name},
            "equality": _equality(forms[name]),
            "audit": audit,
            "accuracies": _accuracies(forms[name], forms[TRAINED]),
        }
        origin.write(path, {**described, **begun, **entries})
    return forms


def _equality(values):
    """The origin's entry of this name."""
    names = ("images", "relative_difference", "disagreements", "ties")
    return {
        "with": origin.TRAIN_FORM,
        "kind": "validation images",
        **{name: values[name] for name in names},
    }


def size_of(path):
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)
