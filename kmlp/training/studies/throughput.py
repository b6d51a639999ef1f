"""Measure how fast a study's rows train, as a share of the device's peak."""

import statistics
import time
from collections.abc import Sequence

from kmlp.analysis.complexity import profile
from kmlp.benchmarking.devices import ROUNDS, SECONDS, Peak
from kmlp.training.job import Job

# A forward pass, and twice as much for the gradients of inputs and weights; each
# multiply-add is two operations.
OPERATIONS = 3 * 2


class Stopwatch:
    """Times a prepared engine's steps on a row's own batches.

    Args:
        job: Row whose engine is prepared; its weights are trained on.
    """

    def __init__(self, job: Job):
        self.job, self.engine = job, job.engine
        self.times: list[float] = []
        self._batches = self.engine.feed(job.training_data(self.engine.step))
        self._take(3)  # which compiles
        self._piece = 3
        for _ in range(2):  # a few steps hardly tell how long many take
            step = max(self._take(self._piece), 1e-6)
            self._piece = max(1, round(SECONDS / step))

    def turn(self) -> None:
        """Measure once."""
        self.times.append(self._take(self._piece))

    def _take(self, steps):
        begun = time.perf_counter()
        self.engine.train(self._batches, steps)
        return (time.perf_counter() - begun) / steps

    def figures(self, peak: float) -> dict[str, float]:
        """End the preparation of batches; return counts and the median turn's speed.

        Args:
            peak: Operations per second of the device.
        """
        getattr(self._batches, "close", lambda: None)()
        counted = profile(self.engine.model)
        step = statistics.median(self.times)
        images = self.job.recipe.batch_size / step
        flops = OPERATIONS * counted.macs * images
        return {
            "parameters": counted.trainable,
            "macs": counted.macs,
            "step_ms": 1000 * step,
            "step_ms_fastest": 1000 * min(self.times),
            "step_ms_slowest": 1000 * max(self.times),
            "images_per_second": images,
            "flops": flops,
            "peak_flops": peak,
            "peak_share": flops / peak,
            "batch_size": self.job.recipe.batch_size,
        }


def measured(watches: Sequence[Stopwatch], peak: Peak) -> list[dict[str, float]]:
    """Return the figures of rows, measured in turns with the peak.

    What slows the machine slows all of them alike.
    """
    for _ in range(ROUNDS):
        for watch in watches:
            watch.turn()
        peak.measure()
    return [watch.figures(peak.value) for watch in watches]


def batch_milliseconds(job: Job, count: int = 50) -> float:
    """Return what one batch takes to prepare, on the thread that does it."""
    batches = iter(job.training_data(0)())
    for _ in range(16):
        next(batches)
    begun = time.perf_counter()
    for _ in range(count):
        next(batches)
    taken = 1000 * (time.perf_counter() - begun) / count
    getattr(batches, "close", lambda: None)()
    return taken
