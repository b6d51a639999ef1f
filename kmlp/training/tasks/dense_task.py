"""The parts that detection and segmentation share: recipe, network, data."""

import argparse
import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.analysis.complexity import count_parameters
from kmlp.data.dense import kind_and_folder, open_dense
from kmlp.data.images import steps_per_epoch
from kmlp.data.pictures import Unreadable
from kmlp.detection.mask_rcnn import CascadeMaskRCNN, MaskRCNN
from kmlp.detection.retinanet import RetinaNet
from kmlp.errors import InputError
from kmlp.models.dense import pyramid_of
from kmlp.predicting.drawing import contact_sheet
from kmlp.preprocessing import DensePreprocessing
from kmlp.recipes.dense_choosing import dense_recipe_for
from kmlp.recipes.dense_recipe import DenseRecipe
from kmlp.recipes.wording import describe
from kmlp.segmentation.segmenter import SemanticFPN
from kmlp.segmentation.upernet import UperNet
from kmlp.training.choices import overridden
from kmlp.training.fine_tuning import Initial, described
from kmlp.training.input.dense_pipeline import evaluation_batches, training_batches
from kmlp.training.job import Job, RunTask, divided_batch
from kmlp.training.networks import POLICIES, check_names, create, explained
from kmlp.training.optimization import make_dense_schedule

HEADS = {
    "retinanet": RetinaNet,
    "mask_rcnn": MaskRCNN,
    "cascade_mask_rcnn": CascadeMaskRCNN,
    "semantic_fpn": SemanticFPN,
    "upernet": UperNet,
}
# Arguments of every head that follow from elsewhere.
_FOLLOWING = {
    "backbone": "pass --arch",
    "num_classes": "it follows from the data",
    "name": "it is the head's",
    "dtype": "pass --precision",
}
PICTURES, SHEET, ROWS = "pictures", "predictions.png", 6


class DenseTask(RunTask):
    """Learn from the losses that a dense model names."""

    rehearsal = (2, 3, 2)
    timed = False

    def __init__(self):
        self.measures = ("loss",)

    def of(self, model: keras.Model) -> "DenseTask":
        self.measures = ("loss", *(f"{name}_loss" for name in model.loss_names))
        return self

    def training(
        self, model: keras.Model, images: Any, targets: Any, taught: Any = None
    ) -> tuple[Any, Any]:
        losses = model.losses_of(model(images, training=True), targets)
        parts = ops.stack([losses[name] for name in model.loss_names])  # (L, N)
        total = ops.sum(parts, axis=0)
        sums = [ops.sum(total)[None], ops.sum(parts, axis=1)]
        return total, ops.concatenate(sums)

    def schedule(self, job: Job) -> Any:
        # A rehearsal takes fewer steps of the same schedule.
        steps = steps_per_epoch(job.source.train.count, job.recipe.batch_size)
        return make_dense_schedule(job.recipe, steps)

    def training_data(self, job: Job, step: int) -> Callable:
        share = job.share(step)
        return functools.partial(training_batches, job.source, job.recipe, **share)

    def validation_batches(self, job: Job, **share: Any) -> Any:
        return evaluation_batches(
            job.source, job.recipe, batch_size=job.batch_size, **share
        )

    def network(self, job: Job, precision: str) -> keras.Model:
        classes = len(job.source.class_names)
        return build(job.options.arch, classes, job.recipe, dtype=precision)

    def home(self, job: Job) -> str:
        return f"{job.recipe.head}_{job.options.arch}"

    def identity(self, job: Job) -> dict[str, Any]:
        source = job.source
        return {
            "pictures": [source.train.count, source.validation.count],
            "weights": None if job.initial is None else job.initial.identity,
            "rehearsal": job.options.rehearse,
        }

    def data_summary(self, job: Job) -> dict[str, Any]:
        own = {"task": job.source.task, "notes": list(job.source.notes)}
        return super().data_summary(job) | own

    def announcement(self, job: Job) -> list[str]:
        recipe, source, model = job.recipe, job.source, job.engine.model
        size = "x".join(map(str, recipe.image_size))
        backbone = count_parameters(model.backbone.weights)
        return [
            describe(recipe, job.base),
            *source.notes,
            f"{recipe.head} over {job.options.arch}, {model.count_params():,} "
            f"parameters ({backbone:,} of the backbone), on {source.in_words()}, "
            f"{size}",
            f"{job.engine.description}, {job.options.precision}: "
            f"{job.epochs * job.steps_per_epoch:,} steps of {recipe.batch_size:,} "
            f"pictures, validated {job.epochs} times, rate {recipe.learning_rate:.3g}",
        ]

    def estimate(self, job: Job, speed: float) -> str:
        whole = chosen_recipe(job.options)[0]
        steps = steps_per_epoch(job.source.train.count, whole.batch_size)
        epochs, steps = whole.length(steps)
        pictures = epochs * steps * whole.batch_size
        return (
            f"Rehearsed. At {speed:,.1f} pictures/s, {pictures:,} of them would take "
            f"{pictures / max(speed, 1e-9) / 3600:,.1f} hours here."
        )

    def preprocessing(self, job: Job) -> DensePreprocessing:
        return DensePreprocessing.of(job.recipe, job.source)

    def extras(
        self, job: Job, model: keras.Model, reference: Any, folder: Path
    ) -> list[str]:
        self.draw(job, model, folder / PICTURES)
        return [f"Pictures of predictions: {{version}}/{PICTURES}"]

    def draw(self, job: Job, model: keras.Model, folder: Path) -> None:
        """Write single pictures and a sheet of them: image, truth, prediction."""
        folder.mkdir(parents=True, exist_ok=True)
        split, drawn, sheet = job.source.validation, self.drawer(job, model), []
        for index in range(split.count):
            try:
                image, truth = split.image(index), split.annotation(index)
            except Unreadable:  # as it was in training, where this may be skipped
                continue
            sheet.append([image, *drawn(image, truth)])
            sheet[-1][-1].save(folder / f"{index:06}.png")
            if len(sheet) == ROWS:
                break
        if sheet:
            titles = ("image", "truth", "prediction")
            contact_sheet(sheet, titles).save(folder / SHEET)

    def drawer(self, job: Job, model: keras.Model) -> Callable:
        """Return a function of image and annotation to truth and prediction, drawn."""
        raise NotImplementedError


class InitialBackbone(Initial):
    """Weights that the backbone of a detector or segmenter begins with."""

    def pairs(self, model: keras.Model) -> tuple[list, list]:
        weights, arrays = model.backbone.weights, list(self.arrays.values())
        shapes = [tuple(weight.shape) for weight in weights]
        if shapes != [array.shape for array in arrays[: len(weights)]]:
            raise InputError(
                "The weights' backbone is not the one that the recipe builds. "
                f"Received: {self.described['name']!r}"
            )
        return weights, arrays[: len(weights)]


def build(
    arch: str, num_classes: int, recipe: DenseRecipe, *, dtype: str | None = None
) -> keras.Model:
    """Build a detector or segmenter with fresh weights.

    Args:
        arch: Name of the backbone, from `kmlp.list_models()`.
        num_classes: Classes of the data.
        recipe: Recipe of head and backbone.
        dtype: Precision, `"float32"`, `"bfloat16"`, `"float16"`; `None`: Keras' own.

    Raises:
        InputError: If a name is unknown, arguments do not fit, or the backbone lacks
            the levels that the head takes.
    """
    known = inspect.signature(HEADS[recipe.head]).parameters
    check_names(recipe.head, "head_arguments", recipe.head_arguments, known, _FOLLOWING)
    backbone = _backbone(arch, recipe, dtype=dtype)
    with explained(f"{recipe.head} over {arch}", recipe.image_size):
        return HEADS[recipe.head](
            backbone,
            num_classes,
            dtype=POLICIES.get(dtype, dtype),
            **recipe.head_arguments,
        )


def _backbone(arch, recipe, **options):
    """Return the backbone alone; options are `dtype` and `weights`."""
    return create(
        f"{recipe.head} over {arch}",
        arch,
        recipe.image_size,
        recipe,
        recipe.model,
        # Blocks that the recipe names are those that the weights were trained on.
        resolution="partition" if "block_size" in recipe.model else "interpolate",
        include_top=False,
        **options,
    )


def chosen_recipe(options: argparse.Namespace) -> tuple[DenseRecipe, DenseRecipe]:
    """Return the recipe with what the command line changes, and as it was before.

    Raises:
        InputError: If a name or field is unknown, or a value does not fit.
    """
    if options.data not in (None, "scenes"):
        kind_and_folder(options.data, options.task)
    base = dense_recipe_for(
        options.arch,
        options.task,
        name=options.recipe,
        head=options.head,
        data=options.data,
    )
    size = options.image_size and "{},{}".format(*options.image_size)
    return overridden(base, options, {"image_size": size}), base


# What a run checks first: a recipe refuses wrong names and values.
check = chosen_recipe


def resolve_dense(
    options: argparse.Namespace, engine: Any, make_task: Callable[..., DenseTask]
) -> Job:
    """Bring recipe, data, weights and devices together.

    Args:
        options: Options of the command line.
        engine: Engine on the devices.
        make_task: Function of the data, the recipe and the indices of the pictures
            that are scored (`None`: all) to the task.

    Raises:
        InputError: If data, weights or batch cannot be worked with.
    """
    recipe, base = chosen_recipe(options)
    source = open_dense(
        options.data or recipe.data,
        recipe.task,
        on_corrupt=options.on_corrupt,
        exif=options.exif,
    )
    epochs, most, batch = DenseTask.rehearsal
    if options.rehearse:
        batch *= engine.replicas * recipe.accumulate
        recipe = dataclasses.replace(recipe, batch_size=batch)
    batch_size = divided_batch(recipe, engine)
    own, steps = recipe.length(steps_per_epoch(source.train.count, recipe.batch_size))
    indices = None
    if options.rehearse:
        own, steps = min(own, epochs), min(steps, most)
        few = most * engine.replicas * batch_size
        indices = range(min(source.validation.count, few))
    return Job(
        task=make_task(source, recipe, indices),
        options=options,
        recipe=recipe,
        base=base,
        source=source,
        engine=engine,
        epochs=own,
        steps_per_epoch=steps,
        batch_size=batch_size,
        initial=None if options.weights is None else _initial(options, recipe),
    )


def _initial(options, recipe):
    """Return the backbone's weights as a run begins with them."""
    backbone = _backbone(options.arch, recipe, weights=options.weights)
    pyramid, _, _ = pyramid_of(backbone, tuple(backbone.pyramid_outputs), norm=None)
    arrays = {
        str(number): np.array(ops.convert_to_numpy(weight))
        for number, weight in enumerate(pyramid.weights)
    }
    said = described(backbone, options, resolution=None, new_head=True)
    text = f"The backbone begins with the weights of {options.weights}"
    return InitialBackbone({}, arrays, said, text)
