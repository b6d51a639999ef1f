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
from kmlp.artifacts.forms import CHECKPOINT
from kmlp.atomic import new_version
from kmlp.data.dense import VOID
from kmlp.dense_preprocessing import DensePreprocessing
from training.dense.comparison import check_agreement, compare
from training.dense.description import written
from training.dense.pictures import draw
from training.publishing import MERGED, SAVED_MODEL, TFLITE, TRAINED, failures, size_of
from training.report import table
from training.runs.loop import BEST
from training.runs.monitor import BOARD, HISTORY, STEPS

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
        Stop: a form disagrees with the trained model, or cannot be written.
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
    if exports:
        print("Merging, exporting and comparing on the validation pictures", flush=True)
    known = DensePreprocessing.of(job.recipe, job.source)
    trained.preprocessing = known
    with failures(exports), new_version(parent) as draft:
        report = {**written(job), "forms": {}}
        if exports:
            report["forms"] = _export(trained, job, draft.folder, known)
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
    if report["forms"]:
        print(table(report["forms"], first=rows_of(job.recipe.task)))
    else:
        print(f"To export it, under TensorFlow: kmlp export {draft.path / CHECKPOINT}")
    print(f"Pictures of predictions: {draft.path / PICTURES}")
    return draft.path


def _export(model, job, folder, known):
    """Writes the artifacts; the figures of every form."""
    from kmlp.export.running import load_saved_model, load_tflite, run_model
    from kmlp.export.saved_model import inference_form, write_saved_model
    from kmlp.export.tflite import check_options, write_tflite

    merged = inference_form(model)
    write_saved_model(merged, folder, preprocessing=None)
    sizes = {SAVED_MODEL: size_of(folder)}
    forms = {
        TRAINED: lambda images: run_model(model, images),
        MERGED: lambda images: run_model(merged, images),
        SAVED_MODEL: load_saved_model(folder),
    }
    files = {SAVED_MODEL: folder}
    if job.recipe.task == "segmentation":
        files[TFLITE] = folder / "model.tflite"
        write_tflite(merged, files[TFLITE], **check_options(model))
        sizes[TFLITE] = size_of(files[TFLITE])
        forms[TFLITE] = load_tflite(files[TFLITE], num_threads=os.cpu_count())
    found = compare(forms, comparison_batches(job), job)
    check_agreement(found)
    for name, form in ((TRAINED, model), (MERGED, merged)):
        profile = kmlp.profile(form)
        found[name] |= {
            "trainable_parameters": profile.trainable,
            "non_trainable_parameters": profile.non_trainable,
            "multiply_adds": profile.macs,
        }
    described = origin.describe(model, form=origin.MERGED, preprocessing=known)
    for name, path in files.items():
        found[name]["bytes"] = sizes[name]
        entries = {"artifact": {"kind": name}, "accuracies": found[name]}
        origin.write(path, {**described, **entries})
    return found


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
    """Rows of the table of forms, as `training.report` has them."""

    def share(name):
        return (
            name.replace("_", " "),
            lambda values: f"{values[name]:.2%}" if name in values else None,
        )

    return [share(name) for name in FIGURES[task]]
