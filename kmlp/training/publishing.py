"""Publish a trained run as a version folder that is checked as a whole."""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmlp.analysis.complexity import profile, shapes_only
from kmlp.artifacts import agreement, origin, origin_text
from kmlp.artifacts.locating import CHECKPOINT, REPORT
from kmlp.artifacts.opening import compiled
from kmlp.artifacts.operation_audit import audited
from kmlp.artifacts.report import forms_table
from kmlp.atomic import Draft, new_version
from kmlp.budget import size_of
from kmlp.console import first_line
from kmlp.errors import InputError, RunError
from kmlp.merging import merge
from kmlp.training.loop import BEST
from kmlp.training.monitor import BOARD, HISTORY, STEPS

TRAINED, MERGED, SAVED_MODEL, TFLITE = "trained", "merged", "SavedModel", "TFLite"
RECIPE, BEST_CHECKPOINT = "recipe.json", "best.keras"
# Files of the run that its version keeps.
KEPT = (RECIPE, HISTORY, STEPS, BOARD)


def check_dense(job: Any) -> None:
    """Refuse `--dense` before the training where it cannot be kept after it.

    Raises:
        InputError: If nothing is exported, or a layer has no other form.
    """
    if job.options.dense is None:
        return
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "--dense is of the export, which TensorFlow as Keras' backend does: leave "
            "it out here, and give it to `kmlp export` there. "
            f"Received: --dense {job.options.dense}"
        )
    with shapes_only():
        merge(job.network("float32"), check=False, dense=job.options.dense)


def publish(job: Any, folder: Path, parent: Path, history: list[dict]) -> Path:
    """Merge and export a trained network, check every form of it and report.

    The version holds `trained.keras` (the train form), `best.keras`, the SavedModel,
    `model.tflite` where TFLite has the operations, `report.json`, what the run wrote
    and what the task adds; it appears as a whole or not at all. Each form carries its
    origin (`kmlp.artifacts.origin`). Without TensorFlow as Keras' backend nothing is
    exported.

    Args:
        job: Job, a `kmlp.training.job.Job`, trained.
        folder: Folder of the unfinished run.
        parent: Folder of the versions.
        history: Rows of the epochs.

    Returns:
        The path of the version.

    Raises:
        RunError: If a form disagrees with the trained model or cannot be written.
    """
    task, exports = job.task, keras.backend.backend() == "tensorflow"
    trained, best = _models(job, folder)
    doing = "Merging, exporting and comparing" if exports else "Scoring"
    print(f"{doing} on the validation images", flush=True)
    known = task.preprocessing(job)
    lost = "Nothing was published, and the trained state is kept"
    with new_reported(parent, folder, KEPT, lost) as (draft, report):
        models, files = {TRAINED: trained}, {}
        if exports:
            models[MERGED], files, dense = _artifacts(
                trained, draft.folder, known, job.options.dense
            )
        runs = {name: answers(model) for name, model in models.items()}
        runs |= {name: runner for name, (_, runner) in files.items()}
        measures = agreement.compare(
            runs, _few(job, task.comparison_batches(job)), lambda: task.agreement(job)
        )
        forms = {name: measure.result() for name, measure in measures.items()}
        agreement.check_agreement(forms)
        _add_costs(forms, models, task.timed and exports)
        begun = job.begun() | ({"dense": dense} if exports else {})
        _add_origins(forms, files, trained, known, begun)
        said = task.extras(job, trained, measures[TRAINED], draft.folder)
        # The comparison was with the trained weights, not with the best.
        for model, name, form in (
            (trained, CHECKPOINT, forms[TRAINED]),
            (best, BEST_CHECKPOINT, None),
        ):
            if model is None:
                continue
            model.preprocessing = known
            origin.save_checkpoint(
                model,
                draft.folder / name,
                accuracies=form and agreement.accuracies(form),
                **job.begun(),
            )
        forms[TRAINED]["bytes"] = size_of(draft.folder / CHECKPOINT)
        score = f"val_{task.score}"
        report |= {
            **job.written(),
            "arguments": trained.get_config(),
            "published": job.options.publish,
            "epochs": history,
            "best": max(history, key=lambda row: row[score]),
            "forms": forms,
        }
    print(forms_table(forms))
    if exports and dense:
        print(f"dense: {origin_text.dense({'dense': dense})}")
    if not exports:
        print(f"To export it, under TensorFlow: kmlp export {draft.path / CHECKPOINT}")
    for line in said:
        print(line.format(version=draft.path))
    return draft.path


@contextlib.contextmanager
def new_reported(
    parent: Path, folder: Path, kept: Iterable[str], lost: str
) -> Iterator[tuple[Draft, dict[str, Any]]]:
    """Write the next version with its report and with what a run wrote.

    Args:
        parent: Folder of the versions.
        folder: Folder of the run.
        kept: Names of what is copied from there, if it is there.
        lost: Beginning of the message where the version cannot be written.

    Yields:
        The draft of the version, and the report, to be filled within the block.

    Raises:
        RunError: If a file cannot be written; no version appears then.
    """
    errors: tuple[type[Exception], ...] = (OSError,)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        errors += (tf.errors.OpError,)
    report: dict[str, Any] = {}
    try:
        with new_version(parent) as draft:
            yield draft, report
            for name in kept:
                if (folder / name).exists():
                    copy = shutil.copytree if (folder / name).is_dir() else shutil.copy2
                    copy(folder / name, draft.folder / name)
            text = json.dumps(report, indent=2, default=str) + "\n"
            (draft.folder / REPORT).write_text(text, "utf-8")
    except errors as error:
        raise RunError(f"{lost}: {error}") from error


def _models(job, folder):
    """Return what is published and the best epoch's, in float32 and in no strategy.

    The best epoch's is `None` where its file is damaged, which must not hold up the
    rest.
    """
    engine = job.engine
    with engine.averaged() if job.averaged else contextlib.nullcontext():
        weights = [
            np.array(keras.ops.convert_to_numpy(w)) for w in engine.model.weights
        ]
    trained, best = job.network("float32"), job.network("float32")
    publishes_best = job.options.publish == "best"
    try:
        best.load_weights(folder / BEST)
    except Exception as error:  # whatever damage makes its readers raise
        lost = f"The best weights cannot be read ({first_line(error)[:200]})"
        if publishes_best:
            raise RunError(
                f"{lost}: pass --publish last to publish those of the last epoch. "
                f"Received: {str(folder / BEST)!r}"
            ) from error
        print(f"{lost}: {BEST_CHECKPOINT} is left out.", file=sys.stderr)
        best = None
    trained.set_weights(best.get_weights() if publishes_best else weights)
    return trained, best


def _few(job, batches):
    """Return validation batches of at most about as many images as asked for."""
    if job.options.rehearse:
        return batches.take(1)
    # Images stand in the order of their classes: every so many batches are taken.
    every = -(-job.source.validation.count // job.options.compare_images)
    return batches.shard(every, 0)


def answers(model: keras.Model) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function of images to a model's predictions by name."""
    predict = compiled(model)

    def _answers(images):
        found = predict(images)
        found = found if isinstance(found, dict) else {"logits": found}
        return {k: keras.ops.convert_to_numpy(part) for k, part in found.items()}

    return _answers


def _artifacts(model, folder, preprocessing, dense):
    """Write the artifacts.

    Returns:
        The merged model, `{name: (path, runner)}`, and the origin's entry `dense`.
    """
    from kmlp.artifacts.running import load_saved_model, load_tflite
    from kmlp.export.groundwork import in_dense_form
    from kmlp.export.saved_model import write_saved_model
    from kmlp.export.tflite import check_options, write_tflite

    # Images say more than a check on random ones.
    merged, entry = in_dense_form(model, True, dense, check=False)
    write_saved_model(merged, folder, preprocessing=preprocessing)
    files = {SAVED_MODEL: (folder, load_saved_model(folder))}
    if not isinstance(model.output, dict):  # TFLite lacks a detector's operations
        path = folder / "model.tflite"
        write_tflite(merged, path, **check_options(model))
        files[TFLITE] = path, load_tflite(path, num_threads=os.cpu_count())
    return merged, files, entry


def _add_costs(forms, models, timed):
    """Add parameters, multiply-adds and, where asked for, latencies."""
    milliseconds = {}
    if timed:
        from kmlp.artifacts.running import model_latencies

        milliseconds = model_latencies(models)
    for name, model in models.items():
        counted = profile(model)
        forms[name] |= {
            "trainable_parameters": counted.trainable,
            "non_trainable_parameters": counted.non_trainable,
            "multiply_adds": counted.macs,
        }
        if name in milliseconds:
            forms[name]["latency_ms"] = milliseconds[name]


def _add_origins(forms, files: dict[str, Any], model, preprocessing, begun):
    """Add sizes and operations of the artifacts, and write where they come from."""
    if not files:
        return
    from kmlp.artifacts.running import batch_of

    described = origin.describe(model, form=origin.MERGED, preprocessing=preprocessing)
    sizes = {name: size_of(path) for name, (path, _) in files.items()}
    # The SavedModel's folder holds the TFLite file too.
    sizes[SAVED_MODEL] -= sizes.get(TFLITE, 0)
    for name, (path, _) in files.items():
        audit = audited(path)
        forms[name] |= {"bytes": sizes[name], **audit}
        origin.write(
            path,
            described,
            artifact={"kind": name}
            | ({"batch": batch_of(path)} if name == TFLITE else {}),
            equality=agreement.equality(forms[name], kind="validation images"),
            audit=audit,
            accuracies=agreement.accuracies(forms[name], forms[TRAINED]),
            **begun,
        )
