"""What a trained row has come to, merged too."""

import math
import sys
import time

import keras
import numpy as np

import kmlp
from kmlp.artifacts.origin import weights_sha256
from kmlp.training.engine.weight_names import weight_names
from kmlp.training.input.array_batches import validation_batches
from kmlp.training.studies.study_backends import inference

# Answers of the merged network that may differ where two classes are equally likely.
TIES = 0.002


def results(job, history):
    """What a trained row has come to, as JSON has it.

    The merged network is compared with the train form in float32, whatever precision
    the row was trained in; that they differ is said, and no reason to lose the row.
    """
    model = job.network("float32")
    trained = weight_names(job.engine.model)
    for name, variable in weight_names(model).items():
        variable.assign(keras.ops.convert_to_numpy(trained[name]))
    merged = kmlp.merge(model)
    right = np.zeros(2)
    differing, distance, size = 0, 0.0, 0.0
    pair = inference(model), inference(merged)
    batches = validation_batches(
        job.data.test_images, job.data.test_labels, job.recipe, job.batch_size
    )
    for images, labels, weights in batches:
        kept = weights > 0
        answers = [answer(images)[kept] for answer in pair]
        classes = [own.argmax(-1) for own in answers]
        right += [np.sum(own == labels[kept]) for own in classes]
        differing += int(np.sum(classes[0] != classes[1]))
        distance = max(distance, float(np.abs(answers[0] - answers[1]).max()))
        size = max(size, float(np.abs(answers[0]).max()))
    count = len(job.data.test_labels)
    if not math.isfinite(distance) or differing > max(1, TIES * count):
        print(
            f"{job.short}: the merged network answers {differing:,} of {count:,} "
            "images differently from the one that was trained; the largest difference "
            f"is {distance:.3g} of {size:.3g}",
            file=sys.stderr,
        )
    profile, lean = kmlp.profile(model), kmlp.profile(merged)
    last = history[-1]
    return {
        "row": job.row.name,
        "architecture": job.row.architecture,
        "identity": job.identity(),
        "top1": 100 * last["val_top1"],
        "best_top1": 100 * max(entry["val_top1"] for entry in history),
        "top1_float32": 100 * right[0] / count,
        "merged_top1": 100 * right[1] / count,
        "merged_differing": differing,
        "merged_difference": distance / max(size, 1e-9),
        "loss": last["loss"],
        "val_loss": last["val_loss"],
        "epochs": job.epochs,
        "parameters": profile.trainable,
        "macs": profile.macs,
        "merged_parameters": lean.trainable,
        "merged_macs": lean.macs,
        "weights_sha256": weights_sha256(model),
        "training_seconds": round(sum(entry["seconds"] for entry in history), 1),
        "finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
