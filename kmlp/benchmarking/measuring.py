"""Images per second, and as a share of the machine's limit.

Everything that is compared runs in turns within one process, in a new random
order every round, and the machine's matrix product runs among it: medians and
their ratios then hold although other work on the machine comes and goes.
"""

import dataclasses
import random
import statistics
import time

from kmlp.console import quiet

PEAK = "matmul"
PEAK_SIZE = 2048
_LEAST_SECONDS = 0.1
# The CPU's seconds are those that the process was given: other work does not add to
# them. Threads that wait for each other do, so that they are for one thread.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclasses.dataclass(frozen=True)
class Contender:
    """One thing to time.

    Attributes:
        name: its label.
        batch: images per call.
        macs: multiply-adds per image, or `None` where no share is wanted.
        run: a call without arguments that ends when its result is there.
    """

    name: str
    batch: int
    macs: int | None
    run: object


@dataclasses.dataclass(frozen=True)
class Timing:
    """A contender's speed.

    Attributes:
        images_per_second: median over the rounds.
        share: of the matrix product's multiply-adds per second, the median of the
            ratios within a round; `None` without multiply-adds.
        rounds: images per second of each round.
    """

    name: str
    batch: int
    images_per_second: float
    share: float | None
    rounds: tuple[float, ...] = ()


def measure(contenders, rounds=10, progress=None, clock=None):
    """Times contenders in interleaved rounds.

    Args:
        contenders: list of `Contender`; one named `PEAK` sets the limit.
        rounds: how often each is timed.
        progress: called with the number of the finished round, or `None`.
        clock: a function that gives seconds, from `CLOCKS`; `None`: the wall's.

    Returns:
        A list of `Timing`, one per contender, in their order.
    """
    clock = clock or time.perf_counter
    times = {contender: repeats(contender.run, clock) for contender in contenders}
    speeds = {contender: [] for contender in contenders}
    for finished in range(1, rounds + 1):
        for contender in random.sample(contenders, len(contenders)):
            speeds[contender].append(turn(contender, times[contender], clock))
        if progress is not None:
            progress(finished)
    peak = next((c for c in contenders if c.name == PEAK), None)
    return [
        Timing(
            contender.name,
            contender.batch,
            statistics.median(speeds[contender]),
            _share(contender, speeds[contender], peak, speeds.get(peak)),
            tuple(speeds[contender]),
        )
        for contender in contenders
    ]


def turn(contender, times, clock):
    """Images per second of so many calls."""
    start = clock()
    for _ in range(times):
        contender.run()
    return contender.batch * times / (clock() - start)


def repeats(run, clock):
    """How many calls make a turn long enough to be timed."""
    run()  # traces, compiles, packs weights
    start = clock()
    run()
    seconds = clock() - start
    return max(1, round(_LEAST_SECONDS / max(seconds, 1e-6)))


def _share(contender, speeds, peak, peak_speeds):
    if peak is None or contender.macs is None:
        return None
    return statistics.median(
        speed * contender.macs / (limit * peak.macs)
        for speed, limit in zip(speeds, peak_speeds, strict=True)
    )


def quartiles(values):
    """Lower and upper quartile, of a single value that twice."""
    if len(values) == 1:
        return (values[0],) * 2
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def use_threads(threads):
    """Sets TensorFlow's threads, before anything runs, and quiets its advice."""
    import tensorflow as tf

    # Every contender is a function of its own, which it takes for retracing.
    tf.get_logger().setLevel("ERROR")
    with quiet():  # TensorFlow looks for devices
        for kind in ("intra", "inter"):
            of = tf.config.threading
            if getattr(of, f"get_{kind}_op_parallelism_threads")() != threads:
                getattr(of, f"set_{kind}_op_parallelism_threads")(threads)
        tf.config.list_logical_devices()


def matmul_peak():
    """TensorFlow's float32 product of two 2048x2048 matrices, as a contender."""
    import tensorflow as tf

    a, b = (tf.random.normal((PEAK_SIZE, PEAK_SIZE), seed=seed) for seed in (0, 1))
    product = tf.function(tf.matmul)
    return Contender(PEAK, 1, PEAK_SIZE**3, lambda: product(a, b).numpy())
