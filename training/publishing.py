"""From a trained model to a version folder that was checked as a whole."""

import csv
import json
import os

import tensorflow as tf

import kmlp
from kmlp.export import audit
from kmlp.export.atomic import new_version
from kmlp.export.running import load_saved_model, load_tflite, run_model
from kmlp.export.saved_model import inference_form, write_saved_model
from kmlp.export.tflite import check_options, write_tflite
from training.console import Stop
from training.evaluation import check_agreement, compare, latency

TRAINED, MERGED, SAVED_MODEL, TFLITE = "trained", "merged", "SavedModel", "TFLite"


def publish(model, data, folder, *, history, details, batch_size):
    """Merges and exports a trained model and checks every form of it.

    The version holds the SavedModel, `model.tflite`, `trained.keras` (the train
    form), `history.csv` and `report.json`; it appears as a whole or not at all.

    Args:
        model: the trained model.
        data: `Images`; the forms are compared on all validation images.
        folder: of the versions.
        history: `{name: value per epoch}`.
        details: of the run, the first entries of the report.
        batch_size: of the comparison.

    Returns:
        `(path of the version, report)`.

    Raises:
        Stop: a form disagrees with the trained model, or cannot be written.
    """
    try:
        return _publish(model, data, folder, history, details, batch_size)
    except (OSError, tf.errors.OpError) as error:
        raise Stop(f"Nothing was published: {error}", code=1) from error


def _publish(model, data, folder, history, details, batch_size):
    merged = inference_form(model)
    with new_version(folder) as draft:
        tflite, trained = draft.folder / "model.tflite", draft.folder / "trained.keras"
        write_saved_model(merged, draft.folder)
        saved_model_bytes = _size(draft.folder)
        write_tflite(merged, tflite, **check_options(model))
        _without_optimizer(model).save(trained)
        forms = compare(
            {
                TRAINED: lambda images: run_model(model, images),
                MERGED: lambda images: run_model(merged, images),
                SAVED_MODEL: load_saved_model(draft.folder),
                TFLITE: load_tflite(tflite, num_threads=os.cpu_count()),
            },
            data,
            batch_size,
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
        forms[TRAINED]["bytes"] = _size(trained)
        for name, path in ((SAVED_MODEL, draft.folder), (TFLITE, tflite)):
            operations = audit(path)
            forms[name] |= {
                "bytes": _size(path) if name == TFLITE else saved_model_bytes,
                "fully_connected_only": operations.fully_connected_only,
                "operations": dict(operations),
            }
        report = {**details, "forms": forms}
        (draft.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        _write_history(draft.folder / "history.csv", history)
    return draft.path, report


def _without_optimizer(model):
    """A copy that was never compiled; the optimizer's state triples a file."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def _size(path):
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def _write_history(path, history):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *history])
        writer.writerows([i, *row] for i, row in enumerate(zip(*history.values()), 1))
