"""The loop of a run: steps, validation, checkpoints, and an end at any moment."""

import contextlib
import dataclasses
import math
import signal
import time

import numpy as np

from kmlp.atomic import new_file
from kmlp.errors import Interrupted, KmlpError, RunError, TimeUp
from kmlp.training.checkpoints import Checkpoint

# Between two looks at the clock and at signals.
PIECE_SECONDS = 0.5
# As long as float16's loss scale may search for its place.
MOST_SKIPPED_STEPS = 50
BEST = "best.weights.h5"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the loop has to do.

    Attributes:
        epochs: cool-down included.
        steps_per_epoch: full global batches.
        batch_size: images per step over all workers.
        averaged: whether the averaged weights are validated and kept as best.
        skips: whether single steps may be skipped as not finite (float16).
        checkpoint_minutes: between two checkpoints.
        checkpoint_steps: the same in steps, or `None`.
        profile: `(first, last)` step to profile, or `None`.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int
    averaged: bool
    skips: bool
    checkpoint_minutes: float
    checkpoint_steps: int | None = None
    profile: tuple[int, int] | None = None

    @property
    def steps(self):
        """Of the whole run."""
        return self.epochs * self.steps_per_epoch


class Loop:
    """Trains to the end of a plan, from wherever the last checkpoint stands.

    Args:
        engine: prepared, with fresh weights and its task.
        plan: the `Plan`.
        training_data: function of a first step to a function that makes a worker's
            data set.
        validation_data: function that makes a worker's data set.
        checkpoints: `Checkpoints`; only the chief reads and writes them.
        monitor: `Monitor`.
        folder: of the run, on the chief.
        explain: function of an exception of the data to a `InputError`, or `None`.
        until: when to end as at a signal, by `time.monotonic()`; `None`: never.
    """

    def __init__(
        self,
        engine,
        plan,
        *,
        training_data,
        validation_data,
        checkpoints,
        monitor,
        folder,
        explain=lambda error: None,
        until=None,
    ):
        self.engine = engine
        self.plan = plan
        self.training_data = training_data
        self.validation_data = validation_data
        self.checkpoints = checkpoints
        self.monitor = monitor
        self.folder = folder
        self.explain = explain
        self.until = until
        self.history = []
        self.best = -math.inf
        self._sums = self._no_sums()
        self._seconds = 0.0
        self._skipped = 0
        self._saved = None
        self._saved_at = time.monotonic()

    def run(self):
        """Trains and returns the history, one row per epoch.

        Raises:
            RunError: a signal, a loss that is not finite, data that vanished or a disk
                that is full; what was reached is kept.
            TimeUp: `until` has come, after one step at least; the same.
        """
        with (
            _signals() as signals,
            contextlib.closing(self.monitor),
            self._explained(),
        ):
            self._resume()
            self.monitor.begin(self.engine.step)
            batches = None
            if self.engine.step < self.plan.steps:
                batches = self.engine.feed(self.training_data(self.engine.step))
            while len(self.history) < self.plan.epochs:
                self._epoch(batches, signals)
            self._save()
            if self.engine.any(signals.received is not None):
                raise self._stopped(signals.received)
        return self.history

    @contextlib.contextmanager
    def _explained(self):
        try:
            yield
        except KmlpError:
            raise
        except Exception as error:
            stop = self.explain(error)
            if stop is None:
                raise
            raise stop from error

    def _resume(self):
        """Takes the newest checkpoint, on all workers the chief's."""
        found = self.checkpoints.latest() if self.engine.chief else None
        if not self.engine.any(found is not None):
            return
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
            print(f"Going on at step {self.engine.step:,} of {self.plan.steps:,}")

    def _epoch(self, batches, signals):
        plan, engine = self.plan, self.engine
        number = len(self.history)
        done = engine.step - number * plan.steps_per_epoch
        self.monitor.epoch(number + 1, done)
        piece, started = 1, time.perf_counter()
        while done < plan.steps_per_epoch:
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
        """Whether it is time for a checkpoint."""
        minutes = (time.monotonic() - self._saved_at) / 60
        every = self.plan.checkpoint_steps
        return minutes >= self.plan.checkpoint_minutes or bool(
            every and self.engine.step % every == 0
        )

    def _piece(self, steps, done):
        """As many steps, or fewer where the loop must look up before their end."""
        step, plan = self.engine.step, self.plan
        if plan.profile and step == plan.profile[0]:
            steps = plan.profile[1] - step
        steps = min(steps, plan.steps_per_epoch - done)
        if plan.checkpoint_steps:
            steps = min(steps, plan.checkpoint_steps - step % plan.checkpoint_steps)
        if plan.profile and step < plan.profile[0]:
            steps = min(steps, plan.profile[0] - step)
        return steps

    def _agreed(self, piece):
        """The chief's word, since the clocks of workers differ."""
        if self.engine.workers == 1:
            return piece
        return int(self.engine.broadcast(np.array(piece, "int32")))

    def _take(self, values):
        """Adds up the values of some steps."""
        step = self.engine.step
        self.monitor.steps(step, values)
        finite = np.asarray(values["finite"], bool)
        if not self.plan.skips:
            finite &= np.isfinite(values["loss"])
        for index, good in enumerate(finite):
            self._skipped = 0 if good else self._skipped + 1
            if not good and (not self.plan.skips or self._skipped > MOST_SKIPPED_STEPS):
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
        weights = engine.averaged() if self.plan.averaged else contextlib.nullcontext()
        with weights:
            results = engine.task.validate(engine, self.validation_data)
            lost = not math.isfinite(results.get("loss", 0.0))
            if lost and not self.plan.averaged:
                raise self._diverged(engine.step)
            if results[engine.task.score] > self.best:
                self.best = results[engine.task.score]
                if engine.chief:
                    self._write_best()
        self.history.append(
            {
                "epoch": epoch,
                "step": engine.step,
                **{name: sums[name] / count for name in engine.task.measures},
                **{f"val_{k}": v for k, v in results.items() if k != "count"},
                "seconds": round(self._seconds, 3),
                "images_per_second": round(
                    self.plan.steps_per_epoch
                    * self.plan.batch_size
                    / max(self._seconds, 1e-9),
                    1,
                ),
            }
        )
        self._sums, self._seconds = self._no_sums(), 0.0
        self.monitor.epoch_end(self.history)

    def _write_best(self):
        try:
            with new_file(self.folder / BEST) as draft:
                self.engine.model.save_weights(draft)
        except OSError as error:
            raise RunError(
                f"The best weights cannot be written ({error}): make room, then give "
                f"the same command to go on. Received: {str(self.folder)!r}",
            ) from error

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
            self.checkpoints.save(Checkpoint(self.engine.step, state, progress))

    def _stopped(self, number):
        if number is None and self._late():
            return TimeUp(
                f"The time is up after step {self.engine.step:,} of "
                f"{self.plan.steps:,}, which is kept: the same command goes on."
            )
        name = signal.Signals(number).name if number else "a signal to another worker"
        return Interrupted(
            f"Stopped by {name} after step {self.engine.step:,} of "
            f"{self.plan.steps:,}, which is kept: give the same command to go on.",
            number or signal.SIGTERM,
        )

    def _diverged(self, step):
        kept = "nothing was kept yet"
        if self._saved:
            kept = f"the last good state, of step {self._saved[0]:,}, is kept"
        return RunError(
            f"The loss is no longer finite; {kept}: pass a smaller --learning-rate, "
            f"or --set clip_norm=1. Received: step {step:,}",
        )

    @contextlib.contextmanager
    def _profiled(self, step):
        profile = self.plan.profile
        if self.folder is None or profile is None or step != profile[0]:
            yield
            return
        import tensorflow as tf

        tf.profiler.experimental.start(str(self.folder / "tensorboard"))
        try:
            yield
        finally:
            tf.profiler.experimental.stop()


@dataclasses.dataclass
class _Signals:
    received: int | None = None


@contextlib.contextmanager
def _signals():
    """Notes the first request to end; the second ends at once."""
    signals, former = _Signals(), {}

    def note(number, _):
        signals.received = number
        signal.signal(number, former[number])

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            former[number] = signal.signal(number, note)
    except ValueError:  # not in the main thread: signals go elsewhere
        former = {}
    try:
        yield signals
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _added(total, values):
    """One by one: the sum must not depend on the pieces of the run."""
    for value in values:
        total += float(value)
    return total
