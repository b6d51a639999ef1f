"""How fast rows train, beside what the device's matrix products could do."""

import statistics
import time

import numpy as np
from keras import ops

import kmlp
from training.studies.backends import compiled, wait

# A forward pass, and twice as much for the gradients of inputs and weights; each
# multiply-add is two operations.
OPERATIONS = 3 * 2
SECONDS = 1.0  # of one measurement
ROUNDS = 5
# Products of one program, so that its start is not measured.
CHAIN = 8
SMALLEST_MATRIX, LARGEST_MATRIX = 1024, 16384


class Stopwatch:
    """Times a prepared engine's steps on a row's own batches.

    Args:
        job: `RowJob`, its engine prepared; its weights are trained on.
    """

    def __init__(self, job):
        self.job, self.engine = job, job.engine
        self.times = []
        self._batches = self.engine.feed(job.training_data(self.engine.step))
        self._take(3)  # which compiles
        self._piece = 3
        for _ in range(2):  # a few steps hardly tell how long many take
            step = max(self._take(self._piece), 1e-6)
            self._piece = max(1, round(SECONDS / step))

    def turn(self):
        """One measurement."""
        self.times.append(self._take(self._piece))

    def _take(self, steps):
        begun = time.perf_counter()
        self.engine.train(self._batches, steps)
        return (time.perf_counter() - begun) / steps

    def close(self):
        """Ends the preparation of batches."""
        getattr(self._batches, "close", lambda: None)()

    def profile(self):
        """`{"parameters", "macs"}` of the train form."""
        counted = kmlp.profile(self.engine.model)
        return {"parameters": counted.trainable, "macs": counted.macs}

    def figures(self, macs, peak):
        """`{"step_ms", "images_per_second", "peak_share", …}`, by the median turn."""
        step = statistics.median(self.times)
        images = self.job.recipe.batch_size / step
        return {
            "step_ms": 1000 * step,
            "step_ms_fastest": 1000 * min(self.times),
            "step_ms_slowest": 1000 * max(self.times),
            "images_per_second": images,
            "flops": OPERATIONS * macs * images,
            "peak_flops": peak,
            "peak_share": OPERATIONS * macs * images / peak,
            "batch_size": self.job.recipe.batch_size,
        }


def measured(job, macs, peak):
    """The figures of one row alone.

    Args:
        macs: multiply-adds of the train form for one image.
        peak: `Peak`.
    """
    watch = Stopwatch(job)
    for _ in range(ROUNDS):
        # In turns: what slows the machine slows both.
        watch.turn()
        peak.measure()
    watch.close()
    return watch.figures(macs, peak.value)


class Peak:
    """Operations per second of large square matrix products on the device in use.

    Args:
        precision: `"float32"`, `"bfloat16"` or `"float16"`.

    Attributes:
        value: of the fastest measurement so far, each the median of some turns; 0
            before the first.
    """

    def __init__(self, precision):
        self.precision = precision
        self.value = 0.0
        self._sizes = None

    def measure(self):
        """Measures once more; returns the value.

        The first time sizes double until a product takes long, then the best is kept:
        a machine that was busy then may be idle now.
        """
        if self._sizes is None:
            self._sizes, size = {}, SMALLEST_MATRIX
            while size <= LARGEST_MATRIX:
                self._sizes[size] = self._product(size)
                if self._speed(size)[1] > SECONDS:
                    break
                size *= 2
            speeds = {size: self._speed(size)[0] for size in self._sizes}
            best = max(speeds, key=speeds.get)
            self._sizes = {best: self._sizes[best]}
        for size in self._sizes:
            self.value = max(self.value, self._speed(size)[0])
        return self.value

    def _product(self, size):
        """A function without arguments that takes `CHAIN` products."""
        random = np.random.default_rng(0)
        # Of such variance that products keep theirs.
        a, b = (
            ops.cast(
                random.standard_normal((size, size), np.float32) * size**-power,
                self.precision,
            )
            for power in (0, 0.5)
        )

        def chain(a, b):
            for _ in range(CHAIN):
                a = ops.matmul(a, b)
            return a

        product = compiled(chain)
        wait(product(a, b))
        return lambda: wait(product(a, b))

    def _speed(self, size):
        """Operations per second, and the seconds of a turn."""
        times = []
        while len(times) < ROUNDS and sum(times) < 2 * SECONDS:
            begun = time.perf_counter()
            self._sizes[size]()
            times.append(time.perf_counter() - begun)
        taken = statistics.median(times)
        return CHAIN * 2 * size**3 / taken, taken


def batch_milliseconds(job, count=50):
    """What one batch takes to prepare, on the thread that does it."""
    batches = iter(job.training_data(0)())
    for _ in range(16):
        next(batches)
    begun = time.perf_counter()
    for _ in range(count):
        next(batches)
    taken = 1000 * (time.perf_counter() - begun) / count
    getattr(batches, "close", lambda: None)()
    return taken
