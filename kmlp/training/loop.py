"""The loop of a run: steps, validation, checkpoints, and an end at any moment."""

import contextlib
import dataclasses
import math
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.errors import Interrupted, KmlpError, RunError, TimeUp
from kmlp.training.checkpoints import CHECKPOINTS, Checkpoint, Checkpoints, writing
from kmlp.training.monitor import BOARD, Monitor

# Between two looks at the clock and at signals.
PIECE_SECONDS = 0.5
# As long as float16's loss scale may search for its place.
MOST_SKIPPED_STEPS = 50
BEST = "best.weights.h5"


def train(
    job: Any, schedule: Any, folder: Path | None, until: float | None = None
) -> list[dict[str, Any]]:
    """Train a job to its end, from wherever its last checkpoint stands.

    Args:
        job: Job whose engine is prepared, a `kmlp.training.job.Job`.
        schedule: Schedule of the learning rate.
        folder: Folder of the run; `None` on workers that do not write.
        until: Time to end at as at a signal, by `time.monotonic()`; `None`: never.

    Returns:
        The history of the run, one row per epoch.

    Raises:
        RunError: If a signal came, the loss is not finite, data vanished or the disk is
            full; what was reached is kept.
        TimeUp: If `until` has come, after one step at least; the same.
    """
    return _Loop(job, schedule, folder, until).run()


class _Loop:
    """Train as `train` says, whose arguments these are."""

    def __init__(self, job, schedule, folder, until):
        self.job, self.engine, self.options = job, job.engine, job.options
        self.folder, self.until = folder, until
        self.monitor = Monitor(job, schedule, folder)
        self.checkpoints = Checkpoints(folder / CHECKPOINTS) if folder else None
        self.steps = job.epochs * job.steps_per_epoch
        # Single steps may be skipped as not finite.
        self.skips = job.options.precision == "float16"
        self.history = []
        self.best = -math.inf
        self._sums = self._no_sums()
        self._seconds = 0.0
        self._skipped = 0
        self._saved = None
        self._saved_at = time.monotonic()

    def run(self) -> list[dict[str, Any]]:
        watched = contextlib.closing(self.monitor)
        with _signals() as signals, watched, _explained():
            curve = self._resume()
            self.monitor.begin(self.engine.step, self.history, curve)
            batches = None
            if self.engine.step < self.steps:
                batches = self.engine.feed(self.job.training_data(self.engine.step))
            while len(self.history) < self.job.epochs:
                self._epoch(batches, signals)
            self._save()
            if self.engine.any(signals.received is not None):
                raise self._stopped(signals.received)
        return self.history

    def _resume(self):
        """Take the newest checkpoint, on all workers the chief's; return its curve."""
        found = self.checkpoints.latest() if self.checkpoints else None
        if not self.engine.any(found is not None):
            return {}
        self.engine.restore(found.arrays if found else None)
        if found is not None:
            progress = found.progress
            self.history, self.best = progress["history"], progress["best"]
            self._sums, self._seconds = progress["sums"], progress["seconds"]
        if self.engine.workers > 1:
            # The others have no use for the rows, but must know which epoch it is.
            rows = int(self.engine.broadcast(np.array(len(self.history), "int32")))
            self.history += [None] * (rows - len(self.history))
        self._saved = (self.engine.step, len(self.history))
        if self.engine.chief:
            print(f"Going on at step {self.engine.step:,} of {self.steps:,}")
        return found.curve if found else {}

    def _epoch(self, batches, signals):
        job, engine = self.job, self.engine
        number = len(self.history)
        done = engine.step - number * job.steps_per_epoch
        self.monitor.epoch(number + 1, done)
        piece, started = 1, time.perf_counter()
        while done < job.steps_per_epoch:
            piece = self._agreed(self._piece(piece, done))
            begun = time.perf_counter()
            with self._profiled(engine.step):
                values = engine.train(batches, piece)
            elapsed = time.perf_counter() - begun
            done += piece
            self._take(values)
            stopping = engine.any(signals.received is not None or self._late())
            if stopping or engine.any(self._due()):
                self._seconds += time.perf_counter() - started
                started = time.perf_counter()
                self._save()
            if stopping:
                raise self._stopped(signals.received)
            piece = max(1, round(PIECE_SECONDS * piece / max(elapsed, 1e-9)))
        self._seconds += time.perf_counter() - started
        self._validate(number + 1)

    def _late(self):
        return self.until is not None and time.monotonic() >= self.until

    def _due(self):
        """Tell whether it is time for a checkpoint."""
        minutes = (time.monotonic() - self._saved_at) / 60
        every = self.options.checkpoint_steps
        return minutes >= self.options.checkpoint_minutes or bool(
            every and self.engine.step % every == 0
        )

    def _piece(self, steps, done):
        """Return so many steps, or fewer where the loop must look up before."""
        step, profile = self.engine.step, self.options.profile
        every = self.options.checkpoint_steps
        if profile and step == profile[0]:
            steps = profile[1] - step
        steps = min(steps, self.job.steps_per_epoch - done)
        if every:
            steps = min(steps, every - step % every)
        if profile and step < profile[0]:
            steps = min(steps, profile[0] - step)
        return steps

    def _agreed(self, piece):
        """Return the chief's word, since the clocks of workers differ."""
        if self.engine.workers == 1:
            return piece
        return int(self.engine.broadcast(np.array(piece, "int32")))

    def _take(self, values):
        """Add up the values of some steps."""
        step = self.engine.step
        self.monitor.steps(step, values)
        finite = np.asarray(values["finite"], bool)
        if not self.skips:
            finite &= np.isfinite(values["loss"])
        for index, good in enumerate(finite):
            self._skipped = 0 if good else self._skipped + 1
            if not good and (not self.skips or self._skipped > MOST_SKIPPED_STEPS):
                raise self._diverged(step - len(finite) + index + 1)
        for name in self.engine.task.measures:
            measured = np.asarray(values[name], "float64")[finite]
            self._sums[name] = _added(self._sums[name], measured)
        self._sums["steps"] += int(finite.sum())

    def _no_sums(self):
        return {name: 0.0 for name in self.engine.task.measures} | {"steps": 0}

    def _validate(self, epoch):
        engine, sums = self.engine, self._sums
        count = max(sums["steps"], 1)
        weights = engine.averaged() if self.job.averaged else contextlib.nullcontext()
        with weights:
            results = engine.task.validate(engine, self.job.validation_data)
            lost = not math.isfinite(results.get("loss", 0.0))
            if lost and not self.job.averaged:
                raise self._diverged(engine.step)
            if results[engine.task.score] > self.best:
                self.best = results[engine.task.score]
                if engine.chief:
                    with writing("The best weights", self.folder / BEST) as draft:
                        engine.model.save_weights(draft)
        self.history.append(
            {
                "epoch": epoch,
                "step": engine.step,
                **{name: sums[name] / count for name in engine.task.measures},
                **{f"val_{k}": v for k, v in results.items() if k != "count"},
                "seconds": round(self._seconds, 3),
                "images_per_second": round(
                    self.job.steps_per_epoch
                    * self.job.recipe.batch_size
                    / max(self._seconds, 1e-9),
                    1,
                ),
            }
        )
        self._sums, self._seconds = self._no_sums(), 0.0
        self.monitor.epoch_end(self.history)

    def _save(self):
        place = (self.engine.step, len(self.history))
        if self._saved == place:
            return
        state = self.engine.state()  # on every worker: it may be gathered
        self._saved, self._saved_at = place, time.monotonic()
        if self.engine.chief:
            progress = {
                "history": self.history,
                "sums": self._sums,
                "best": self.best,
                "seconds": self._seconds,
            }
            curve = self.monitor.curve()
            self.checkpoints.save(Checkpoint(self.engine.step, state, progress, curve))

    def _stopped(self, number):
        if number is None and self._late():
            return TimeUp(
                f"The time is up after step {self.engine.step:,} of "
                f"{self.steps:,}, which is kept: the same command goes on."
            )
        name = signal.Signals(number).name if number else "a signal to another worker"
        return Interrupted(
            f"Stopped by {name} after step {self.engine.step:,} of "
            f"{self.steps:,}, which is kept: give the same command to go on.",
            number or signal.SIGTERM,
        )

    def _diverged(self, step):
        kept = "nothing was kept yet"
        if self._saved:
            kept = f"the last good state, of step {self._saved[0]:,}, is kept"
        return RunError(
            f"The loss is no longer finite; {kept}: pass a smaller --learning-rate, "
            f"or --set clip_norm=1. Received: step {step:,}"
        )

    @contextlib.contextmanager
    def _profiled(self, step):
        profile = self.options.profile
        if self.folder is None or profile is None or step != profile[0]:
            yield
            return
        import tensorflow as tf

        tf.profiler.experimental.start(str(self.folder / BOARD))
        try:
            yield
        finally:
            tf.profiler.experimental.stop()


@contextlib.contextmanager
def _explained():
    """Turn what data or disk may do to a run into an error for people."""
    try:
        yield
    except KmlpError:
        raise
    except OSError as error:
        raise RunError(
            f"The run's folder cannot be written ({error}): make room or mend the "
            "disk, then give the same command to go on from the last checkpoint. "
            f"Received: {error.filename or error.errno!r}"
        ) from error
    except Exception as error:
        if not sys.modules.get("tensorflow"):
            raise  # nor did it read the images
        from kmlp.data.reading import reason

        found = reason(error)
        if found is None:
            raise
        raise found from error


@dataclasses.dataclass
class _Signals:
    received: int | None = None


def ending(system: Any = signal) -> list[int]:
    """Return the requests to end that a system has; SIGBREAK is Windows' Ctrl-Break."""
    names = ("SIGTERM", "SIGINT", "SIGBREAK")
    return [getattr(system, name) for name in names if hasattr(system, name)]


@contextlib.contextmanager
def _signals():
    """Note the first request to end; the second ends at once."""
    signals, former = _Signals(), {}

    def _note(number, _):
        signals.received = number
        signal.signal(number, former[number])

    try:
        for number in ending():
            former[number] = signal.signal(number, _note)
    except ValueError:  # not in the main thread: signals go elsewhere
        former = {}
    try:
        yield signals
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _added(total, values):
    """Add one by one: the sum must not depend on the pieces of the run."""
    for value in values:
        total += float(value)
    return total
