"""Classification: images in class folders, cross-entropy, top-1 and top-5."""

import argparse
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kmlp.artifacts.agreement import ClassAgreement
from kmlp.errors import InputError
from kmlp.preprocessing import Preprocessing
from kmlp.recipes.wording import describe
from kmlp.training.choices import chosen_data, chosen_recipe
from kmlp.training.distillation import Objective, open_teacher
from kmlp.training.fine_tuning import chosen, initial_weights, open_initial, settle
from kmlp.training.job import Job, RunTask, divided_batch
from kmlp.training.networks import build
from kmlp.training.optimization import make_schedule
from kmlp.typing import Tensor


class Classification(RunTask):
    """Learn classes from shares of them, under a teacher or without one.

    Args:
        objective: Function `objective(logits, targets, teacher_logits=None) -> (N,)`,
            the float32 loss of every sample, in `keras.ops`.
    """

    name = "classification"
    measures = ("loss", "accuracy")
    score = "top1"
    timed = True

    def __init__(self, objective: Callable):
        self.objective = objective

    def training(
        self, model: keras.Model, images: Any, targets: Any, taught: Any = None
    ) -> tuple[Any, Any]:
        logits = ops.cast(model(images, training=True), "float32")
        losses = self.objective(logits, targets, taught)
        return losses, training_sums(losses, logits, targets)

    def evaluation(
        self, model: keras.Model, images: Any, labels: Any, weights: Any
    ) -> Any:
        return evaluation_sums(model(images, training=False), labels, weights)

    def result(self, sums: Any) -> dict[str, float]:
        """Return `{"loss", "top1", "top5", "count"}`, shares in 0…1."""
        *values, count = (float(value) for value in sums)
        shares = [value / max(count, 1.0) for value in values]
        return dict(zip(("loss", "top1", "top5", "count"), (*shares, count)))

    def schedule(self, job: Job) -> Any:
        return make_schedule(job.recipe, job.steps_per_epoch)

    def teacher(self, job: Job) -> Any:
        recipe = job.recipe
        if recipe.teacher is None:
            return None
        return open_teacher(
            recipe.teacher,
            num_classes=len(job.source.class_names),
            image_size=recipe.image_size,
            mean=recipe.mean,
            std=recipe.std,
            class_names=job.source.class_names,
        )

    def training_data(self, job: Job, step: int) -> Callable:
        # TensorFlow reads files; a study, which has its images in memory, needs none.
        from kmlp.training.input.pipeline import training_batches

        share = {"image_size": job.recipe.image_size, **job.share(step)}
        return functools.partial(training_batches, job.source, job.recipe, **share)

    def validation_batches(self, job: Job, **share: int) -> Any:
        from kmlp.data.reading import evaluation_batches

        return evaluation_batches(
            job.source.validation,
            job.recipe,
            image_size=job.recipe.image_size,
            batch_size=job.batch_size,
            **share,
        )

    def network(self, job: Job, precision: str) -> keras.Model:
        return build(
            job.options.arch,
            len(job.source.class_names),
            job.recipe.image_size,
            job.recipe,
            local_kernels=job.options.local_kernels,
            dtype=precision,
            overrides=None if job.initial is None else job.initial.arguments,
        )

    def home(self, job: Job) -> str:
        return job.options.arch

    def identity(self, job: Job) -> dict[str, Any]:
        source, begun = job.source, job.begun()
        if job.initial is not None:
            begun["initial_weights"] = job.initial.identity
        return {"images": [source.train.count, source.validation.count], **begun}

    def data_summary(self, job: Job) -> dict[str, Any]:
        recipe = job.recipe
        return super().data_summary(job) | {
            "image_size": recipe.image_size,
            "mean": list(recipe.mean),
            "std": list(recipe.std),
            "skipped_images": list(job.source.skipped),
            "ignored_files": job.source.ignored,
        }

    def announcement(self, job: Job) -> list[str]:
        peak, _, final = job.recipe.scaled_rates()
        source, recipe = job.source, job.recipe
        return [
            describe(recipe, job.base),
            f"{job.options.arch}, {job.engine.model.count_params():,} parameters, on "
            f"{source.in_words()}, {recipe.image_size}x{recipe.image_size}",
            f"{job.engine.description}, {job.options.precision}: {job.epochs} epochs "
            f"of {job.steps_per_epoch:,} steps of {recipe.batch_size:,} images, rate "
            f"{peak:.3g} to {final:.3g}",
        ]

    def estimate(self, job: Job, speed: float) -> str:
        epochs = (job.base.epochs or job.epochs) + job.base.cooldown_epochs
        count = job.source.train.count
        hours = epochs * count / max(speed, 1e-9) / 3600
        return (
            f"Rehearsed. At {speed:,.1f} images/s, {epochs} epochs of {count:,} images "
            f"would take {hours:,.1f} hours here."
        )

    def preprocessing(self, job: Job) -> Preprocessing:
        recipe = job.recipe
        return Preprocessing(
            mean=tuple(recipe.mean),
            std=tuple(recipe.std),
            image_size=recipe.image_size,
            test_crop=recipe.test_crop,
            test_interpolation=recipe.test_interpolation,
            exif=job.options.exif,
            class_names=tuple(job.source.class_names),
        )

    def agreement(self, job: Job) -> ClassAgreement:
        return ClassAgreement()


def check(options: argparse.Namespace) -> None:
    """Find the weights, the data's name and the recipe of the command line.

    Raises:
        InputError: If one of them is unknown or contradicts another.
    """
    settle(options)
    options.data = chosen_data(options)
    chosen_recipe(options)


def resolve(options: argparse.Namespace, engine: Any) -> Job:
    """Bring recipe, data, weights and devices together.

    Raises:
        InputError: If data, recipe, weights or batch cannot be worked with.
    """
    from kmlp.data.images import steps_per_epoch
    from kmlp.data.sources import open_source
    from kmlp.training.input.in_memory import load
    from kmlp.training.input.policies import parse

    source = open_source(
        options.data,
        data_dir=options.data_dir,
        download=options.download,
        on_corrupt=options.on_corrupt,
    ).with_exif(options.exif)
    classes = len(source.class_names)
    if options.num_classes not in (None, classes):
        raise InputError(
            f"The data have {classes} classes: leave --num-classes out or correct it. "
            f"Received: --num-classes {options.num_classes}"
        )
    begun, start = None, None
    frozen: tuple[str, ...] = ()
    if options.weights is not None:
        begun = open_initial(options, chosen_recipe(options)[0].model)
    recipe, base = chosen_recipe(options, source, begun)
    if begun is not None:
        start = initial_weights(begun, options, recipe.image_size, source.class_names)
        frozen = () if options.freeze is None else chosen(options.freeze, begun)
    epochs, most, batch = Classification.rehearsal
    if options.rehearse:
        batch *= engine.replicas * recipe.accumulate
        recipe = dataclasses.replace(recipe.shortened(epochs), batch_size=batch)
    if recipe.policy:
        parse(recipe.policy)  # refuse a wrong name before any image is read
    batch_size = divided_batch(recipe, engine)
    source = load(source, recipe)
    images = source.splits["train"].count
    mean, std = _statistics(source, begun)
    recipe = recipe.resolved(images=images, flip=source.flip, mean=mean, std=std)
    steps = steps_per_epoch(images, recipe.batch_size)
    kind, alpha = recipe.distillation, recipe.distillation_alpha
    return Job(
        task=Classification(Objective(kind, alpha, recipe.temperature)),
        options=options,
        recipe=recipe,
        base=base,
        source=source,
        engine=engine,
        epochs=(recipe.epochs or 0) + recipe.cooldown_epochs,
        steps_per_epoch=min(steps, most) if options.rehearse else steps,
        batch_size=batch_size,
        initial=start,
        frozen=frozen,
    )


def _statistics(source, begun):
    """Return mean and deviation for a recipe without: the weights', or the data's."""
    known = None if begun is None else begun.preprocessing
    if known is None or None in (known.mean, known.std):
        known = source
    return known.mean, known.std


def training_sums(losses: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Return `(2,)` float32: the sum of losses, and how many classes were right."""
    right = ops.equal(ops.argmax(logits, axis=-1), ops.argmax(targets, axis=-1))
    return ops.stack([ops.sum(losses), ops.sum(ops.cast(right, "float32"))])


def evaluation_sums(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return `(4,)` float32: a batch's sums of cross-entropy, top-1, top-5 and weights.

    Args:
        logits: Logits `(N, classes)`; of equal logits the first class is ranked first,
            and a row with NaN is wrong.
        labels: Labels `(N,)`, integers.
        weights: Weights `(N,)`, 0 for rows that do not count.
    """
    logits = ops.cast(logits, "float32")
    weights = ops.cast(weights, "float32")
    labels = ops.cast(labels, "int32")
    losses = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    own = ops.take_along_axis(logits, labels[:, None], axis=-1)
    before = ops.arange(logits.shape[-1], dtype="int32")[None] < labels[:, None]
    ahead = ops.logical_or(logits > own, ops.logical_and(logits == own, before))
    rank = ops.sum(ops.cast(ahead, "int32"), axis=-1)
    sound = ops.logical_not(ops.any(ops.isnan(logits), axis=-1))
    right = [ops.cast(ops.logical_and(rank < k, sound), "float32") for k in (1, 5)]
    # Padded rows may hold anything, NaN too.
    counts = weights > 0
    sums = [
        ops.sum(ops.where(counts, values * weights, 0.0)) for values in (losses, *right)
    ]
    return ops.stack([*sums, ops.sum(weights)])
