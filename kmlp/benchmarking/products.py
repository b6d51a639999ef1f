"""What the device's matrix products reach, by the backend in use."""

import statistics
import time

import numpy as np
from keras import ops

from kmlp.benchmarking.devices import compiled, wait

SECONDS = 1.0  # of one measurement
ROUNDS = 5
# Products of one program, so that its start is not measured.
CHAIN = 8
SMALLEST_MATRIX, LARGEST_MATRIX = 1024, 16384


class Peak:
    """Operations per second of large square matrix products on the device in use.

    Args:
        precision: `"float32"`, `"bfloat16"` or `"float16"`.
        seconds: of one measurement; `None`: `SECONDS`.
        smallest: the size of the first matrices; `None`: `SMALLEST_MATRIX`.

    Attributes:
        value: of the fastest measurement so far, each the median of some turns; 0
            before the first.
    """

    def __init__(self, precision, seconds=None, smallest=None):
        self.precision = precision
        self.value = 0.0
        self._seconds = SECONDS if seconds is None else seconds
        self._smallest = SMALLEST_MATRIX if smallest is None else smallest
        self._sizes = None

    def measure(self):
        """Measures once more; returns the value."""
        self.turn()
        return self.value

    def turn(self):
        """Measures once more; returns what this measurement was.

        The first time sizes double until a product takes long, then the best is kept:
        a machine that was busy then may be idle now.
        """
        if self._sizes is None:
            self._sizes, size = {}, self._smallest
            while size <= LARGEST_MATRIX:
                self._sizes[size] = self._product(size)
                if self._speed(size)[1] > self._seconds:
                    break
                size *= 2
            speeds = {size: self._speed(size)[0] for size in self._sizes}
            best = max(speeds, key=speeds.get)
            self._sizes = {best: self._sizes[best]}
        found = max(self._speed(size)[0] for size in self._sizes)
        self.value = max(self.value, found)
        return found

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
        while len(times) < ROUNDS and sum(times) < 2 * self._seconds:
            begun = time.perf_counter()
            self._sizes[size]()
            times.append(time.perf_counter() - begun)
        taken = statistics.median(times)
        return CHAIN * 2 * size**3 / taken, taken
