"""A detector's or segmenter's run: from the command line to a published version."""

import dataclasses
import functools
import time

import keras
import numpy as np
from keras import ops

from kmlp.analysis.complexity import count_parameters
from kmlp.data.dense import open_dense
from kmlp.errors import InputError
from kmlp.models.dense import pyramid_of
from kmlp.recipes import describe
from kmlp.training.checkpoints import RunFolder
from kmlp.training.dense_choices import chosen_recipe
from kmlp.training.dense_description import identity, written
from kmlp.training.dense_ending import finish
from kmlp.training.dense_networks import backbone_of, build
from kmlp.training.engine.cluster import open_engine, per_replica_batch
from kmlp.training.engine.engine import Options
from kmlp.training.input import steps_per_epoch
from kmlp.training.input.dense_pipeline import evaluation_batches, training_batches
from kmlp.training.optimization import make_dense_schedule, make_optimizer
from kmlp.training.run import checked_output, train
from kmlp.training.tasks.dense_tasks import task_of

# A rehearsal: validations, steps before each, and images per device and micro-batch.
REHEARSED, REHEARSED_STEPS, REHEARSED_BATCH = 2, 3, 2


@dataclasses.dataclass(frozen=True)
class DenseJob:
    """A run, resolved: nothing is left to decide.

    Attributes:
        options: of the command line.
        recipe: `DenseRecipe` with all that the command line changed.
        source: `DenseSource`.
        engine: on the devices.
        task: of the engine.
        epochs: validations of the run.
        steps_per_epoch: before each of them.
        batch_size: of one replica.
        initial: the backbone's weights that training begins with, a list of arrays;
            `None`: fresh ones.
    """

    options: object
    recipe: object
    source: object
    engine: object
    task: object
    epochs: int
    steps_per_epoch: int
    batch_size: int
    initial: list | None = None

    averaged = False

    def training_data(self, step):
        """A function that makes this worker's data set from `step` on."""
        return functools.partial(
            training_batches,
            self.source,
            self.recipe,
            batch_size=self.batch_size,
            global_batch=self.recipe.batch_size,
            start_step=step,
            worker=self.engine.worker,
            workers=self.engine.workers,
            seed=self.options.seed,
        )

    def validation_batches(self, worker=0, workers=1, replicas=1):
        """The validation pictures, or a worker's share of them."""
        return evaluation_batches(
            self.source,
            self.recipe,
            batch_size=self.batch_size,
            worker=worker,
            workers=workers,
            replicas=replicas,
        )

    def validation_data(self):
        """This worker's share of the validation pictures, in a rehearsal a few."""
        engine = self.engine
        batches = self.validation_batches(
            engine.worker, engine.workers, engine.local_replicas
        )
        if self.options.rehearse:
            batches = batches.take(REHEARSED_STEPS * engine.local_replicas)
        return batches

    def network(self, precision):
        """The detector or segmenter, with fresh weights."""
        classes = len(self.source.class_names)
        return build(self.options.arch, classes, self.recipe, dtype=precision)


def run(options):
    """Trains, publishes and reports.

    Raises:
        InputError: input that cannot be worked with, or a run that ends before its
            time.
    """
    started = time.monotonic()
    recipe, base = chosen_recipe(options)
    checked_output(options)
    engine = open_engine(options.strategy, options.devices)
    job = resolve(options, engine, recipe)
    keras.utils.set_random_seed(options.seed)
    schedule = prepare(job)
    parent = options.output / ("rehearsals" if options.rehearse else "")
    parent = parent / f"{recipe.head}_{options.arch}"
    folder = RunFolder(parent, identity(job))
    if not engine.chief:
        print(f"Worker {engine.worker} of {engine.workers}, {engine.description}")
        train(job, schedule, None)
        engine.close()
        return
    with folder.open(options.fresh):
        announce(job, base)
        folder.write("recipe.json", written(job))
        history = train(job, schedule, folder.path)
        engine.close()  # the others need not wait for the export
        path = finish(job, folder.path, parent, history)
        folder.remove()
    if options.rehearse:
        print(estimate(job, history))
    print(f"Published {path} after {time.monotonic() - started:.0f} s")


def resolve(options, engine, recipe):
    """The `DenseJob` of the options.

    Raises:
        InputError: data, weights or batch that cannot be worked with.
    """
    source = open_dense(
        options.data or recipe.data, recipe.task, on_corrupt=options.on_corrupt
    )
    if options.rehearse:
        batch = REHEARSED_BATCH * engine.replicas * recipe.accumulate
        recipe = dataclasses.replace(recipe, batch_size=batch)
    batch_size = per_replica_batch(
        recipe.batch_size, engine.replicas, recipe.accumulate
    )
    steps = steps_per_epoch(source.train.count, recipe.batch_size)
    epochs, steps = recipe.length(steps)
    if options.rehearse:
        epochs, steps = min(epochs, REHEARSED), min(steps, REHEARSED_STEPS)
    initial = None
    if options.weights is not None:
        backbone = backbone_of(options.arch, recipe, weights=options.weights)
        levels = tuple(backbone.pyramid_outputs)
        pyramid, _, _ = pyramid_of(backbone, levels, norm=None)
        initial = [np.array(ops.convert_to_numpy(w)) for w in pyramid.weights]
    indices = None
    if options.rehearse:
        few = REHEARSED_STEPS * engine.replicas * batch_size
        indices = range(min(source.validation.count, few))
    return DenseJob(
        options=options,
        recipe=recipe,
        source=source,
        engine=engine,
        task=task_of(source, recipe, indices=indices),
        epochs=epochs,
        steps_per_epoch=steps,
        batch_size=batch_size,
        initial=initial,
    )


def prepare(job):
    """Gives the engine all that a step needs; returns the schedule of the rate."""
    recipe, options, engine = job.recipe, job.options, job.engine
    steps = steps_per_epoch(job.source.train.count, recipe.batch_size)
    schedule = make_dense_schedule(recipe, steps)
    with engine.scope():
        model = job.network(options.precision)
        if job.initial is not None:
            begin_with(model, job.initial, engine)
        engine.prepare(
            model,
            make_optimizer(recipe, model, schedule),
            job.task.of(model),
            Options(
                clip_norm=recipe.clip_norm,
                accumulate=recipe.accumulate,
                precision=options.precision,
                xla=options.xla,
                steps_per_execution=options.steps_per_execution,
                sync_batchnorm=recipe.sync_batchnorm,
                seed=options.seed,
            ),
        )
    return schedule


def begin_with(model, arrays, engine):
    """Gives the backbone weights, on all workers those of the chief.

    Raises:
        InputError: they are of other taps than the head stands on.
    """
    weights = model.backbone.weights
    if [tuple(w.shape) for w in weights] != [a.shape for a in arrays[: len(weights)]]:
        raise InputError("The weights' backbone is not the one that the recipe builds.")
    for variable, array in zip(weights, engine.broadcast_all(arrays)):
        engine.assign(variable, array)


def announce(job, base):
    """Says what is about to happen."""
    recipe, source, model = job.recipe, job.source, job.engine.model
    print(describe(recipe, base))
    if job.options.weights is not None:
        print(f"The backbone begins with the weights of {job.options.weights}")
    for note in source.notes:
        print(note)
    size = "x".join(map(str, recipe.image_size))
    backbone = count_parameters(model.backbone.weights)
    print(
        f"{recipe.head} over {job.options.arch}, {model.count_params():,} parameters "
        f"({backbone:,} of the backbone), on {source.name}: {source.train.count:,} "
        f"pictures to train, {source.validation.count:,} to validate, "
        f"{len(source.class_names)} classes, {size}"
    )
    print(
        f"{job.engine.description}, {job.options.precision}: "
        f"{job.epochs * job.steps_per_epoch:,} steps of {recipe.batch_size:,} "
        f"pictures, validated {job.epochs} times, rate {recipe.learning_rate:.3g}",
        flush=True,
    )


def estimate(job, history):
    """How long the whole run would take at the speed of a rehearsal."""
    speed = history[-1]["images_per_second"]
    whole = chosen_recipe(job.options)[0]
    steps = steps_per_epoch(job.source.train.count, whole.batch_size)
    epochs, steps = whole.length(steps)
    pictures = epochs * steps * whole.batch_size
    return (
        f"Rehearsed. At {speed:,.1f} pictures/s, {pictures:,} of them would take "
        f"{pictures / max(speed, 1e-9) / 3600:,.1f} hours here."
    )
