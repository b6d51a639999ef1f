"""The steps of a job, whatever it trains: loop, curves, checkpoints, second starts."""

import os
import sys

from kmlp.atomic import check_writable
from kmlp.errors import InputError, RunError
from kmlp.training.checkpoints import CHECKPOINTS, Checkpoints
from kmlp.training.engine.engine import WorkerLost
from kmlp.training.loop import Loop, Plan
from kmlp.training.monitor import Monitor

# How often a worker that lost the others waits for them again.
MOST_RETURNS = 10
RETURNS = "KMLP_RETURNS"  # tells a process how often it came back


def run_or_return(run, options):
    """`run(options)`; where another worker is lost, this one starts itself anew.

    Collective operations cannot be taken up again within a process: the same command
    replaces it, waits for all workers to be there and goes on from the checkpoint.

    Raises:
        InputError: as `run`, or the others were lost too often.
    """
    try:
        run(options)
    except WorkerLost as lost:
        count = int(os.environ.get(RETURNS, "0")) + 1
        if count > MOST_RETURNS:
            raise RunError(f"{lost} (the {count}th time)") from lost
        os.environ[RETURNS] = str(count)
        print(
            f"{' '.join(str(lost).split())[:300]} Waiting for all workers, time "
            f"{count} of {MOST_RETURNS}.",
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def checked_output(options):
    """Says at once that the folder of the results cannot be written.

    Raises:
        InputError: it cannot.
    """
    try:
        if options.output.exists():
            check_writable(options.output)
    except OSError as error:
        raise InputError(f"--output: {error}") from error


def train(job, schedule, folder, until=None):
    """The history of the run, one row per epoch.

    Args:
        job: `Job`, `DenseJob` or `RowJob`, its engine prepared.
        schedule: of the learning rate.
        folder: of the run; `None` on workers that do not write.
        until: as `Loop` has it.
    """
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
        averaged=job.averaged,
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
        until=until,
    )
    return loop.run()


def explained(error):
    """A `InputError` for what data or disk may do to a run, or `None`."""
    if isinstance(error, OSError):
        return RunError(
            f"The run's folder cannot be written ({error}): make room or mend the "
            "disk, then give the same command to go on from the last checkpoint. "
            f"Received: {error.filename or error.errno!r}",
        )
    if not sys.modules.get("tensorflow"):
        return None  # nor did it read the images
    from kmlp.data.reading import reason

    return reason(error)
