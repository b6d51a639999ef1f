"""The end of a run: its weights become a published version."""

import contextlib

import keras
import numpy as np

from kmlp.preprocessing import Preprocessing
from kmlp.training.form_table import table
from kmlp.training.loop import BEST
from kmlp.training.monitor import BOARD, HISTORY, STEPS
from kmlp.training.publishing import publish
from kmlp.training.resolved import network, serialized, written


def finish(job, folder, parent, history):
    """Publishes the run; the path of the version."""
    exported = float32_copy(job)
    best = network(job, "float32")
    best.load_weights(folder / BEST)
    if job.options.publish == "best":
        exported.set_weights(best.get_weights())
    if keras.backend.backend() == "tensorflow":
        print("Merging, exporting and comparing on the validation images", flush=True)
    path, report = publish(
        exported,
        comparison_batches(job),
        parent,
        preprocessing=preprocessing(job),
        details={
            **written(job),
            "arguments": serialized(exported),
            "published": job.options.publish,
            "epochs": history,
            "best": max(history, key=lambda row: row["val_top1"]),
        },
        keep=[
            path
            for name in ("recipe.json", HISTORY, STEPS, BOARD)
            if (path := folder / name).exists()
        ],
        best=best,
    )
    if report["forms"]:
        print(table(report["forms"]))
    else:
        print(f"To export it, under TensorFlow: kmlp export {path / 'trained.keras'}")
    return path


def preprocessing(job):
    """How the job's validation images become inputs."""
    recipe = job.recipe
    return Preprocessing(
        mean=tuple(recipe.mean),
        std=tuple(recipe.std),
        image_size=recipe.image_size,
        test_crop=recipe.test_crop,
        test_interpolation=recipe.test_interpolation,
        class_names=tuple(job.source.class_names),
    )


def float32_copy(job):
    """The trained weights, or their averages, in a model outside of any strategy."""
    engine = job.engine
    averaged = job.recipe.evaluate == "ema"
    with engine.averaged() if averaged else contextlib.nullcontext():
        weights = [
            np.array(keras.ops.convert_to_numpy(w)) for w in engine.model.weights
        ]
    copy = network(job, "float32")
    copy.set_weights(weights)
    return copy


def comparison_batches(job):
    """Validation images for the exported forms, at most about as many as asked."""
    batches = job.validation_batches()
    if job.options.rehearse:
        return batches.take(1)
    # Images stand in the order of their classes: every so many batches are taken.
    every = -(-job.source.validation.count // job.options.compare_images)
    return batches.shard(every, 0)


def estimate(job, base, history):
    """How long the whole run would take at the speed of a rehearsal."""
    speed = history[-1]["images_per_second"]
    epochs = (base.epochs or job.epochs) + base.cooldown_epochs
    hours = epochs * job.source.train.count / max(speed, 1e-9) / 3600
    return (
        f"Rehearsed. At {speed:,.1f} images/s, {epochs} epochs of "
        f"{job.source.train.count:,} images would take {hours:,.1f} hours here."
    )
