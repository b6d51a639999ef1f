"""One row of a study: its recipe, its data and its network."""

import dataclasses
import functools
import math
import random
import sys
import time
import types
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from kmlp.analysis.complexity import profile
from kmlp.artifacts.agreement import ClassAgreement, compare
from kmlp.artifacts.origin import weights_sha256
from kmlp.data.images import steps_per_epoch
from kmlp.merging import merge
from kmlp.models.papers import Row
from kmlp.recipes.wording import to_json
from kmlp.statistics import IMAGENET
from kmlp.training.choices import chosen_recipe
from kmlp.training.distillation.teachers import Objective
from kmlp.training.engine.weight_names import weight_names
from kmlp.training.input.array_batches import (
    check,
    training_batches,
    validation_batches,
)
from kmlp.training.input.arrays import Packed
from kmlp.training.job import Job, divided_batch
from kmlp.training.networks import build
from kmlp.training.studies.study import Study
from kmlp.training.studies.throughput import inference, tensorflow_data
from kmlp.training.tasks.classification import Classification

# Steps that go without coming back to Python: some of them take a few milliseconds.
QUEUED = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowJob(Job):
    """A row's run, resolved: images in memory, and a network of the table.

    Attributes:
        study: Study that the row belongs to.
        row: Row of its table.
        data: `Packed`, already cut to the scale.
    """

    study: Study
    row: Row
    data: Packed

    averaged = False
    least_steps = QUEUED

    @property
    def short(self) -> str:
        """Name of the row within its table."""
        return self.row.name.rpartition("/")[2]

    def training_data(self, step: int) -> Callable:
        data = self.data
        batches = functools.partial(
            training_batches,
            data.train_images,
            data.train_labels,
            self.recipe,
            classes=len(data.class_names),
            batch_size=self.batch_size,
            global_batch=self.recipe.batch_size,
            start_step=step,
            seed=self.options.seed,
        )
        return _of_backend(batches)

    def validation_data(self) -> Iterable:
        return _of_backend(
            lambda: validation_batches(
                self.data.test_images,
                self.data.test_labels,
                self.recipe,
                self.batch_size,
                self.engine.local_replicas,
            )
        )()

    def network(self, precision: str) -> keras.Model:
        reseed(self.options.seed)
        return build(
            self.row.name,
            len(self.data.class_names),
            self.recipe.image_size,
            self.recipe,
            dtype=precision,
            overrides=self.study.smaller(self.row),
        )

    def identity(self) -> dict[str, Any]:
        """Return what decides the row's result: neither backend nor devices do."""
        family, arguments = self.study.arguments(self.row)
        return {
            "row": self.row.name,
            "class": family.__name__,
            "arguments": {name: str(value) for name, value in arguments.items()},
            "recipe": to_json(self.recipe),
            "data": self.data.content,
            "images": [len(self.data.train_labels), len(self.data.test_labels)],
            "seed": self.options.seed,
            "precision": self.options.precision,
            "scale": self.study.scale.name,
        }


def _of_backend(batches):
    if keras.backend.backend() == "tensorflow":
        return lambda: tensorflow_data(batches)
    return batches


def resolve_row(study, row, options, engine, data):
    """A row's `RowJob`.

    Raises:
        InputError: a recipe or batch that cannot be worked with.
    """
    count = len(data.train_labels)
    base = row_recipe(study, row, options)
    recipe = base.resolved(
        images=count,
        mean=IMAGENET.mean,
        std=IMAGENET.std,
    )
    check(recipe)
    steps = steps_per_epoch(count, recipe.batch_size)
    return RowJob(
        task=Classification(Objective()),
        options=options,
        recipe=recipe,
        base=base,
        source=data,
        engine=engine,
        epochs=recipe.epochs + recipe.cooldown_epochs,
        steps_per_epoch=steps,
        batch_size=divided_batch(recipe, engine),
        study=study,
        row=row,
        data=data,
    )


def row_recipe(study, row, options):
    """The recipe of a row with what the command line and the scale change."""
    changed = vars(options) | {"arch": row.name, "data": str(options.data)}
    if options.epochs is None:
        changed["epochs"] = study.scale.epochs
    # Whatever the table, its images here are small.
    small = types.SimpleNamespace(small=True)
    recipe, _ = chosen_recipe(types.SimpleNamespace(**changed), source=small)
    return recipe


def reseed(seed):
    """Seeds what fresh weights are drawn from, without importing TensorFlow for it."""
    if keras.backend.backend() == "tensorflow":
        keras.utils.set_random_seed(seed)
        return
    # Keras' initializers draw their own seeds from Python's generator.
    random.seed(seed)
    np.random.seed(seed)
    if keras.backend.backend() == "torch":
        import torch

        torch.manual_seed(seed)


# Answers of the merged network that may differ where two classes are equally likely.
TIES = 0.002


def results(job, history):
    """What a trained row has come to, as JSON has it.

    The merged network is compared with the train form in float32, whatever precision
    the row was trained in; that they differ is said, and no reason to lose the row.
    """
    model = job.network("float32")
    values = weight_names(job.engine.model)
    for name, variable in weight_names(model).items():
        variable.assign(keras.ops.convert_to_numpy(values[name]))
    merged = merge(model)
    batches = validation_batches(
        job.data.test_images, job.data.test_labels, job.recipe, job.batch_size
    )
    forms = {"trained": _named(inference(model)), "merged": _named(inference(merged))}
    measures = compare(forms, batches, ClassAgreement)
    trained, found = (measure.result() for measure in measures.values())
    count = found["images"]
    differing = found["disagreements"] + found["ties"]
    finite = math.isfinite(found["largest_difference"])
    if not finite or differing > max(1, TIES * count):
        print(
            f"{job.short}: the merged network answers {differing:,} of {count:,} "
            "images differently from the one that was trained; the largest difference "
            f"is {found['largest_difference']:.3g} of "
            f"{measures['merged'].magnitude:.3g}",
            file=sys.stderr,
        )
    whole, lean = profile(model), profile(merged)
    last = history[-1]
    return {
        "row": job.row.name,
        "architecture": job.row.architecture,
        "identity": job.identity(),
        "top1": 100 * last["val_top1"],
        "best_top1": 100 * max(entry["val_top1"] for entry in history),
        "top1_float32": 100 * trained["accuracy"],
        "merged_top1": 100 * found["accuracy"],
        "merged_differing": differing,
        "merged_difference": found["relative_difference"] if finite else None,
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


def _named(answers):
    return lambda images: {"logits": answers(images)}
