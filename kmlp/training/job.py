"""The job from the command's options to a published version."""

import time

import keras

from kmlp.analysis.complexity import count_parameters
from kmlp.recipes import describe, scaled_rates
from kmlp.training.checkpoints import RunFolder
from kmlp.training.choices import chosen_data, chosen_recipe
from kmlp.training.distillation import Objective, open_teacher
from kmlp.training.ending import estimate, finish
from kmlp.training.engine.cluster import open_engine
from kmlp.training.engine.engine import Options
from kmlp.training.freezing import freeze
from kmlp.training.initial import settle
from kmlp.training.optimization import make_optimizer, make_schedule
from kmlp.training.resolved import identity, network, resolve_job, written
from kmlp.training.run import checked_output, train
from kmlp.training.tasks.classification import Classification


def run(options):
    """Trains, publishes and reports.

    Raises:
        InputError: input that cannot be worked with, or a run that ends before its
            time.
    """
    started = time.monotonic()
    # What is mistyped is said before anything is read or waited for.
    settle(options)
    options.data = chosen_data(options)
    chosen_recipe(options)
    checked_output(options)
    engine = open_engine(options.strategy, options.devices)
    job, base = resolve_job(options, engine)
    keras.utils.set_random_seed(options.seed)
    schedule = prepare(job)
    parent = options.output / ("rehearsals" if options.rehearse else "") / options.arch
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
        print(estimate(job, base, history))
    print(f"Published {path} after {time.monotonic() - started:.0f} s")


def prepare(job):
    """Gives the engine all that a step needs; returns the schedule of the rate."""
    recipe, options = job.recipe, job.options
    schedule = make_schedule(recipe, job.steps_per_epoch)
    with job.engine.scope():
        model = network(job, options.precision)
        if job.initial is not None:
            job.initial.fill(model, job.engine)
            freeze(model, job.frozen)
        teacher = None
        if recipe.teacher is not None:
            teacher = open_teacher(
                recipe.teacher,
                num_classes=len(job.source.class_names),
                image_size=recipe.image_size,
                mean=recipe.mean,
                std=recipe.std,
                class_names=job.source.class_names,
            )
        job.engine.prepare(
            model,
            make_optimizer(recipe, model, schedule),
            Classification(
                Objective(
                    recipe.distillation, recipe.distillation_alpha, recipe.temperature
                )
            ),
            Options(
                clip_norm=recipe.clip_norm,
                ema=recipe.ema,
                accumulate=recipe.accumulate,
                precision=options.precision,
                xla=options.xla,
                steps_per_execution=options.steps_per_execution,
                sync_batchnorm=recipe.sync_batchnorm,
                seed=options.seed,
            ),
            teacher,
        )
    return schedule


def announce(job, base):
    """Says what is about to happen."""
    peak, _, final = scaled_rates(job.recipe)
    source, recipe = job.source, job.recipe
    print(describe(recipe, base))
    if job.initial is not None:
        print(job.initial.text)
    model = job.engine.model
    if job.frozen:
        trained = count_parameters(model.trainable_weights)
        print(f"Frozen: {' '.join(job.frozen)}; {trained:,} parameters are trained")
    print(
        f"{job.options.arch}, {model.count_params():,} parameters, on "
        f"{source.name}: {source.train.count:,} images to train, "
        f"{source.validation.count:,} to validate, {len(source.class_names)} classes, "
        f"{recipe.image_size}x{recipe.image_size}"
    )
    print(
        f"{job.engine.description}, {job.options.precision}: {job.epochs} epochs of "
        f"{job.steps_per_epoch:,} steps of {recipe.batch_size:,} images, rate "
        f"{peak:.3g} to {final:.3g}",
        flush=True,
    )
