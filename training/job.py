"""The job from the command's options to a published version."""

import os
import sys
import time

import keras

from kmlp.analysis.complexity import count_parameters
from kmlp.atomic import check_writable
from kmlp.data import reason
from training.choices import chosen_data, chosen_recipe
from training.console import Stop
from training.distillation import Objective, open_teacher
from training.ending import estimate, finish
from training.engine.base import Options, WorkerLost
from training.engine.cluster import open_engine
from training.freezing import freeze
from training.initial import settle
from training.optimization import make_optimizer, make_schedule
from training.recipes import describe, scaled_rates
from training.resolved import identity, network, resolve_job, written
from training.runs.checkpoints import Checkpoints
from training.runs.folder import CHECKPOINTS, RunFolder
from training.runs.loop import Loop, Plan
from training.runs.monitor import Monitor

# How often a worker that lost the others waits for them again.
MOST_RETURNS = 10
RETURNS = "KMLP_RETURNS"  # tells a process how often it came back


def run_or_return(options):
    """`run`; where another worker is lost, this one starts itself anew.

    Collective operations cannot be taken up again within a process: the same command
    replaces it, waits for all workers to be there and goes on from the checkpoint.

    Raises:
        Stop: as `run`, or the others were lost too often.
    """
    try:
        run(options)
    except WorkerLost as lost:
        count = int(os.environ.get(RETURNS, "0")) + 1
        if count > MOST_RETURNS:
            raise Stop(f"{lost} (the {count}th time)", code=1) from lost
        os.environ[RETURNS] = str(count)
        print(
            f"{' '.join(str(lost).split())[:300]} Waiting for all workers, time "
            f"{count} of {MOST_RETURNS}.",
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def run(options):
    """Trains, publishes and reports.

    Raises:
        Stop: input that cannot be worked with, or a run that ends before its time.
    """
    started = time.monotonic()
    # What is mistyped is said before anything is read or waited for.
    settle(options)
    options.data = chosen_data(options)
    chosen_recipe(options)
    try:
        if options.output.exists():
            check_writable(options.output)
    except OSError as error:
        raise Stop(f"--output: {error}") from error
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
            Objective(
                recipe.distillation, recipe.distillation_alpha, recipe.temperature
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


def train(job, schedule, folder):
    """The history of the run, one row per epoch."""
    recipe, options = job.recipe, job.options
    monitor = Monitor(
        folder,
        batch_size=recipe.batch_size,
        steps_per_epoch=job.steps_per_epoch,
        epochs=job.epochs,
        rate_at=schedule.rate_at,
        every=min(options.log_steps, job.steps_per_epoch),
        first_images=lambda: next(iter(job.training_data(0)()))[0],
    )
    plan = Plan(
        epochs=job.epochs,
        steps_per_epoch=job.steps_per_epoch,
        batch_size=recipe.batch_size,
        averaged=recipe.evaluate == "ema",
        skips=options.precision == "float16",
        checkpoint_minutes=options.checkpoint_minutes,
        checkpoint_steps=options.checkpoint_steps,
        profile=options.profile,
    )
    loop = Loop(
        job.engine,
        plan,
        training_data=job.training_data,
        validation_data=job.validation_data,
        checkpoints=Checkpoints(folder / CHECKPOINTS) if folder else None,
        monitor=monitor,
        folder=folder,
        explain=explained,
    )
    return loop.run()


def explained(error):
    """A `Stop` for what data or disk may do to a run, or `None`."""
    if isinstance(error, OSError):
        return Stop(
            f"The run's folder cannot be written ({error}): make room or mend the "
            "disk, then give the same command to go on from the last checkpoint. "
            f"Received: {error.filename or error.errno!r}",
            code=1,
        )
    return reason(error)
