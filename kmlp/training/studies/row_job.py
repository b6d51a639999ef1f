"""One row of a study: its recipe, its data and its network."""

import argparse
import contextlib
import functools
import math
import random
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from kmlp.analysis.complexity import profile
from kmlp.artifacts.agreement import ClassAgreement, compare
from kmlp.artifacts.origin import weights_sha256
from kmlp.data.images import steps_per_epoch
from kmlp.merging import merge
from kmlp.models.papers import Row
from kmlp.recipes.classification_recipe import ClassificationRecipe
from kmlp.recipes.wording import to_json
from kmlp.statistics import IMAGENET
from kmlp.training.choices import chosen_recipe
from kmlp.training.distillation import Objective
from kmlp.training.engine.weight_names import weight_names
from kmlp.training.input.array_batches import (
    check,
    training_batches,
    validation_batches,
)
from kmlp.training.input.arrays import Packed
from kmlp.training.job import Job, divided_batch
from kmlp.training.networks import build
from kmlp.training.publishing import answers
from kmlp.training.studies.study import Study, short
from kmlp.training.tasks.classification import Classification

# Counts up where what a row comes to changes with the code, such as how it starts.
REVISION = 2
# Steps that go without coming back to Python: some of them take a few milliseconds.
QUEUED = 4


class RowTask(Classification):
    """Classify images in memory by a network of the table.

    Args:
        study: Study that the row belongs to.
        row: Row of its table.
    """

    averages = False
    least_steps = QUEUED

    def __init__(self, study: Study, row: Row):
        super().__init__(Objective())
        self.study, self.row = study, row
        self.short = short(row)

    def training_data(self, job: Job, step: int) -> Callable:
        data = job.source
        return _of_backend(
            functools.partial(
                training_batches,
                data.train_images,
                data.train_labels,
                job.recipe,
                classes=len(data.class_names),
                batch_size=job.batch_size,
                global_batch=job.recipe.batch_size,
                start_step=step,
                seed=job.options.seed,
            )
        )

    def validation_batches(self, job: Job, replicas: int = 1, **share: int) -> Any:
        return _of_backend(functools.partial(batches_in_order, job, replicas))()

    def network(self, job: Job, precision: str) -> keras.Model:
        reseed(job.options.seed)
        return build(
            self.row.name,
            len(job.source.class_names),
            job.recipe.image_size,
            job.recipe,
            dtype=precision,
            overrides=self.study.smaller(self.row),
        )

    def identity(self, job: Job) -> dict[str, Any]:
        """Return what decides the row's result: neither backend nor devices do."""
        family, arguments = self.study.arguments(self.row)
        return {
            "code": REVISION,
            "row": self.row.name,
            "class": family.__name__,
            "arguments": {name: str(value) for name, value in arguments.items()},
            "recipe": to_json(job.recipe),
            "data": job.source.content,
            "images": [len(job.source.train_labels), len(job.source.test_labels)],
            "seed": job.options.seed,
            "precision": job.options.precision,
            "scale": self.study.scale.name,
        }


def batches_in_order(job: Job, replicas: int = 1) -> Iterator:
    """Yield the test images, as many batches for every replica."""
    images, labels = job.source.test_images, job.source.test_labels
    yield from validation_batches(images, labels, job.recipe, job.batch_size, replicas)


def _of_backend(batches):
    """Return a function that makes batches as the backend's engine takes them.

    Args:
        batches: Function that makes an iterable of tuples of arrays, each as the first.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    def _dataset():
        first = next(iter(batches()))
        signature = tuple(tf.TensorSpec(array.shape, array.dtype) for array in first)
        made = tf.data.Dataset.from_generator(batches, output_signature=signature)
        return made.prefetch(2)

    return _dataset


def resolve_row(
    study: Study, row: Row, options: argparse.Namespace, engine: Any, data: Packed
) -> Job:
    """Bring a row's recipe, data and devices together.

    Raises:
        InputError: If recipe or batch cannot be worked with.
    """
    count = len(data.train_labels)
    base = row_recipe(study, row, options)
    recipe = base.resolved(images=count, mean=IMAGENET.mean, std=IMAGENET.std)
    check(recipe)
    return Job(
        task=RowTask(study, row),
        options=options,
        recipe=recipe,
        base=base,
        source=data,
        engine=engine,
        epochs=(recipe.epochs or 0) + recipe.cooldown_epochs,
        steps_per_epoch=steps_per_epoch(count, recipe.batch_size),
        batch_size=divided_batch(recipe, engine),
    )


def row_recipe(
    study: Study, row: Row, options: argparse.Namespace
) -> ClassificationRecipe:
    """Return the recipe of a row with what the command line and the scale change."""
    changed = vars(options) | {"arch": row.name, "data": str(options.data)}
    changed["recipe"] = study.scale.recipe
    if options.epochs is None:
        changed["epochs"] = study.scale.epochs
    # Images are small here, whatever the table.
    small = types.SimpleNamespace(small=True)
    recipe, _ = chosen_recipe(argparse.Namespace(**changed), source=small)
    return recipe


def reseed(seed: int) -> None:
    """Seed what fresh weights are drawn from, without importing TensorFlow for it."""
    if keras.backend.backend() == "tensorflow":
        keras.utils.set_random_seed(seed)
        return
    # Keras' initializers draw their own seeds from Python's generator.
    random.seed(seed)
    np.random.seed(seed)
    if keras.backend.backend() == "torch":
        import torch

        torch.manual_seed(seed)


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Keep products of float32 in float32: GPUs would round their factors."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    elif backend == "torch":
        import torch

        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    else:
        import tensorflow as tf

        config = tf.config.experimental
        before = config.tensor_float_32_execution_enabled()
        config.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            config.enable_tensor_float_32_execution(before)


# Answers of the merged network that may differ where two classes are equally likely.
TIES = 0.002


def results(job: Job, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a trained row has come to, as JSON has it.

    The merged network is compared with the train form in float32, whatever precision
    the row was trained in; that they differ is said, and no reason to lose the row.
    """
    task: Any = job.task
    model = job.network("float32")
    values = weight_names(job.engine.model)
    for name, variable in weight_names(model).items():
        variable.assign(keras.ops.convert_to_numpy(values[name]))
    merged = merge(model, check=False)  # they are compared on images below
    with exact():
        forms = {"trained": answers(model), "merged": answers(merged)}
        measures = compare(forms, batches_in_order(job), ClassAgreement)
    trained, found = (measure.result() for measure in measures.values())
    count = found["images"]
    differing = found["disagreements"] + found["ties"]
    finite = math.isfinite(found["largest_difference"])
    if not finite or differing > max(1, TIES * count):
        print(
            f"{task.short}: the merged network answers {differing:,} of {count:,} "
            "images differently from the one that was trained; the largest difference "
            f"is {found['largest_difference']:.3g} of "
            f"{measures['merged'].magnitude:.3g}",
            file=sys.stderr,
        )
    whole, lean = profile(model), profile(merged)
    last = history[-1]
    return {
        "row": task.row.name,
        "architecture": task.row.architecture,
        "identity": task.identity(job),
        "top1": 100 * last["val_top1"],
        "best_top1": 100 * max(entry["val_top1"] for entry in history),
        "top1_float32": 100 * trained["accuracy"],
        "merged_top1": 100 * found["accuracy"],
        "merged_differing": differing,
        "merged_difference": found["relative_difference"] if finite else None,
        "seed": job.options.seed,
        "loss": last["loss"],
        "val_loss": last["val_loss"],
        "epochs": job.epochs,
        "parameters": whole.trainable,
        "macs": whole.macs,
        "merged_parameters": lean.trainable,
        "merged_macs": lean.macs,
        "weights_sha256": weights_sha256(model),
        "training_seconds": round(sum(entry["seconds"] for entry in history), 1),
        "finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
