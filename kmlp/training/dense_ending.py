"""The end of a run: a checked version with artifacts, figures and pictures."""

import functools
import json
import os
import shutil

import keras
import numpy as np
import tensorflow as tf

import kmlp
from kmlp.artifacts import origin
from kmlp.artifacts.locating import CHECKPOINT
from kmlp.artifacts.opening import compiled
from kmlp.atomic import new_version
from kmlp.data.dense import VOID
from kmlp.dense_preprocessing import DensePreprocessing
from kmlp.training.dense_comparison import check_agreement, compare
from kmlp.training.dense_description import written
from kmlp.training.form_table import table
from kmlp.training.loop import BEST
from kmlp.training.monitor import BOARD, HISTORY, STEPS
from kmlp.training.prediction_pictures import draw
from kmlp.training.publishing import (
    MERGED,
    SAVED_MODEL,
    TFLITE,
    TRAINED,
    failures,
    size_of,
)

RESULTS = "results.json"
PICTURES = "pictures"
FIGURES = {
    "detection": ("AP", "AP50", "AP75", "mask_AP", "mask_AP50", "mask_AP75"),
    "segmentation": ("mIoU", "accuracy"),
}


def finish(job, folder, parent, history):
    """Publishes the run; the path of the version.

    The version holds `trained.keras`, the best weights as `best.keras`, the
    SavedModel, `model.tflite` of segmenters, `results.json` of detectors as COCO takes
    it, pictures, `report.json` and what the run wrote; it appears as a whole or not at
    all. Without TensorFlow as Keras' backend nothing is exported.

    Raises:
        InputError: a form disagrees with the trained model, or cannot be written.
    """
    trained, best = job.network("float32"), job.network("float32")
    weights = [
        np.array(keras.ops.convert_to_numpy(w)) for w in job.engine.model.weights
    ]
    best.load_weights(folder / BEST)
    trained.set_weights(
        best.get_weights() if job.options.publish == "best" else weights
    )
    exports = keras.backend.backend() == "tensorflow"
    doing = "Merging, exporting and comparing" if exports else "Scoring"
    print(f"{doing} on the validation pictures", flush=True)
    known = DensePreprocessing.of(job.recipe, job.source)
    trained.preprocessing = known
    with failures(exports), new_version(parent) as draft:
        forms, files = {TRAINED: _answers(trained)}, {}
        merged = None
        if exports:
            merged, files = _artifacts(trained, job, draft.folder)
            forms |= {MERGED: _answers(merged)}
            forms |= {name: runner for name, (_, runner) in files.items()}
        found, entries = compare(forms, comparison_batches(job), job)
        check_agreement(found)
        _describe(found, trained, merged, files, known)
        report = {**written(job), "forms": found}
        if entries:
            (draft.folder / RESULTS).write_text(json.dumps(entries) + "\n")
        draw(trained, job, draft.folder / PICTURES)
        for name in ("recipe.json", HISTORY, STEPS, BOARD):
            if (folder / name).exists():
                copy = shutil.copytree if (folder / name).is_dir() else shutil.copy2
                copy(folder / name, draft.folder / name)
        for model, name in ((trained, CHECKPOINT), (best, "best.keras")):
            model.save(draft.folder / name)
            described = origin.describe(
                model, form=origin.TRAIN_FORM, preprocessing=known
            )
            origin.write(draft.folder / name, described)
        score = f"val_{job.task.score}"
        report |= {
            "published": job.options.publish,
            "epochs": history,
            "best": max(history, key=lambda row: row[score]),
        }
        (draft.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(table(report["forms"], first=rows_of(job.recipe.task)))
    if not exports:
        print(f"To export it, under TensorFlow: kmlp export {draft.path / CHECKPOINT}")
    print(f"Pictures of predictions: {draft.path / PICTURES}")
    return draft.path


def _answers(model):
    """A function of images to a model's predictions as `{name: array}`."""
    predict = compiled(model)

    def answers(images):
        found = predict(images)
        found = found if isinstance(found, dict) else {"logits": found}
        return {k: keras.ops.convert_to_numpy(part) for k, part in found.items()}

    return answers


def _artifacts(model, job, folder):
    """Writes the artifacts; the merged model, and `{name: (path, runner)}`."""
    from kmlp.artifacts.running import load_saved_model, load_tflite
    from kmlp.export.saved_model import inference_form, write_saved_model
    from kmlp.export.tflite import check_options, write_tflite

    merged = inference_form(model)
    write_saved_model(merged, folder)
    files = {SAVED_MODEL: (folder, load_saved_model(folder))}
    if job.recipe.task == "segmentation":
        path = folder / "model.tflite"
        write_tflite(merged, path, **check_options(model))
        files[TFLITE] = path, load_tflite(path, num_threads=os.cpu_count())
    return merged, files


def _describe(found, model, merged, files, known):
    """Adds sizes and costs to what was found of the forms; origins to artifacts."""
    for name, form in ((TRAINED, model), (MERGED, merged)):
        if form is None:
            continue
        profile = kmlp.profile(form)
        found[name] |= {
            "trainable_parameters": profile.trainable,
            "non_trainable_parameters": profile.non_trainable,
            "multiply_adds": profile.macs,
        }
    if not files:
        return
    described = origin.describe(model, form=origin.MERGED, preprocessing=known)
    sizes = {name: size_of(path) for name, (path, _) in files.items()}
    # The SavedModel's folder holds the TFLite file too.
    sizes[SAVED_MODEL] -= sizes.get(TFLITE, 0)
    for name, (path, _) in files.items():
        found[name]["bytes"] = sizes[name]
        entries = {"artifact": {"kind": name}, "accuracies": found[name]}
        origin.write(path, {**described, **entries})


def comparison_batches(job):
    """Validation pictures at the artifacts' size, at most about as many as asked."""
    batches = job.validation_batches()
    if job.recipe.task == "segmentation":
        batches = batches.map(functools.partial(_corner, job.recipe.image_size))
    if job.options.rehearse:
        return batches.take(1)
    every = -(-job.source.validation.count // job.options.compare_images)
    return batches.shard(every, 0)


def _corner(size, images, labels, weights):
    """The upper left of pictures of any size, and of their maps where they fit."""
    if tuple(images.shape[1:3]) == tuple(size):
        return images, labels, weights
    own, (height, width) = tf.shape(images)[1:3], size
    missing = [[0, tf.maximum(side - own[i], 0)] for i, side in enumerate(size)]
    images = tf.pad(images[:, :height, :width], [[0, 0], *missing, [0, 0]])
    images = tf.ensure_shape(images, (None, height, width, 3))
    # Maps keep their own size: here they say nothing.
    void = tf.fill((tf.shape(images)[0], height, width), tf.constant(VOID, tf.uint8))
    return images, void, weights


def rows_of(task):
    """Rows of the table of forms, as `kmlp.training.form_table` has them."""

    def share(name):
        return (
            name.replace("_", " "),
            lambda values: f"{values[name]:.2%}" if name in values else None,
        )

    return [share(name) for name in FIGURES[task]]
