"""Images per second, and as a share of the machine's limit.

Everything that is compared runs in turns within one process, in a new random
order every round, and the machine's matrix product runs among it: medians and
their ratios then hold although other work on the machine comes and goes.
"""

import dataclasses
import functools
import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from kmlp.console import quiet

PEAK = "matmul"
PEAK_SIZE = 2048
_LEAST_SECONDS = 0.1
Clock = Callable[[], float]
# The CPU's seconds are those that the process was given: other work does not add to
# them. Threads that wait for each other do, so that they are for one thread.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclasses.dataclass(frozen=True)
class Contender:
    """One thing to time.

    Attributes:
        name: Label.
        batch: Images per call.
        macs: Multiply-adds per image, or `None` where no share is wanted.
        run: Call without arguments that ends when its result is there.
    """

    name: str
    batch: int
    macs: int | None
    run: Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Timing:
    """The speed of a contender.

    Attributes:
        name, batch: Label and images per call of the contender.
        images_per_second: Median over the rounds.
        share: Share of the matrix product's multiply-adds per second, the median of
            the ratios within a round; `None` without multiply-adds.
        rounds: Images per second of each round.
    """

    name: str
    batch: int
    images_per_second: float
    share: float | None
    rounds: tuple[float, ...] = ()


def in_turns(
    turns: Mapping[Any, Callable[[], float | None]],
    rounds: int,
    progress: Callable[[int], object] | None = None,
) -> list[dict[Hashable, float]]:
    """Measure everything once in each round, in a new random order every time.

    Args:
        turns: Functions without arguments to a measurement, or to `None` where there
            is none.
        rounds: Number of rounds.
        progress: Function that is called with the number of each round, or `None`.

    Returns:
        What was measured in each round, by the keys of `turns`.
    """
    found = []
    for number in range(1, rounds + 1):
        if progress is not None:
            progress(number)
        values = {key: turns[key]() for key in random.sample(list(turns), len(turns))}
        found.append({key: v for key, v in values.items() if v is not None})
    return found


def measure(
    contenders: Sequence[Contender],
    rounds: int = 10,
    progress: Callable[[int], object] | None = None,
    clock: Clock = time.perf_counter,
) -> list[Timing]:
    """Time contenders in interleaved rounds.

    Args:
        contenders: Contenders; one named `PEAK` sets the limit.
        rounds: Number of times that each is timed.
        progress: Function that is called with the number of each round, or `None`.
        clock: Function that returns seconds, from `CLOCKS`.

    Returns:
        A `Timing` for each contender, in their order.
    """
    turns = {contender: turn_of(contender, clock) for contender in contenders}
    found = in_turns(turns, rounds, progress)
    peak = next((c for c in contenders if c.name == PEAK), None)
    timings = []
    for one in contenders:
        speeds = [values[one] for values in found]
        share = None
        if peak is not None and peak.macs and one.macs is not None:
            limits = [values[peak] * peak.macs for values in found]
            ratios = [speed * one.macs / limit for speed, limit in zip(speeds, limits)]
            share = statistics.median(ratios)
        median = statistics.median(speeds)
        timings.append(Timing(one.name, one.batch, median, share, tuple(speeds)))
    return timings


def turn_of(
    contender: Contender, clock: Clock = time.perf_counter
) -> Callable[[], float]:
    """Return a function to images per second of as many calls as can be timed."""
    contender.run()  # traces, compiles, packs weights
    once = seconds(contender.run, clock)
    times = max(1, round(_LEAST_SECONDS / max(once, 1e-6)))

    def _repeated():
        for _ in range(times):
            contender.run()

    return lambda: contender.batch * times / seconds(_repeated, clock)


def seconds(run: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """Return how long a call takes."""
    start = clock()
    run()
    return clock() - start


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the lower and upper quartile, of a single value that twice."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def random_images(batch: int, shape: Sequence[int]) -> np.ndarray:
    """Return a batch of images `(H, W, C)` of normal values."""
    return np.random.default_rng(0).standard_normal((batch, *shape), np.float32)


def use_threads(threads: int) -> None:
    """Set TensorFlow's threads, before anything runs, and quiet its advice."""
    import tensorflow as tf

    # Every contender is a function of its own, which it takes for retracing.
    tf.get_logger().setLevel("ERROR")
    with quiet():  # TensorFlow looks for devices
        for kind in ("intra", "inter"):
            of = tf.config.threading
            if getattr(of, f"get_{kind}_op_parallelism_threads")() != threads:
                getattr(of, f"set_{kind}_op_parallelism_threads")(threads)
        tf.config.list_logical_devices()


def matmul_peak() -> Contender:
    """Return TensorFlow's float32 product of two 2048x2048 matrices."""
    import tensorflow as tf

    factors = [tf.random.normal((PEAK_SIZE, PEAK_SIZE), seed=seed) for seed in (0, 1)]
    product = functools.partial(tf.function(tf.matmul), *factors)
    return Contender(PEAK, 1, PEAK_SIZE**3, lambda: product().numpy())
