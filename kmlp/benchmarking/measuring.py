"""Images per second, and as a share of the machine's limit.

Everything that is compared runs in turns within one process, in a new random
order every round, and the machine's matrix product runs among it: medians and
their ratios then hold although other work on the machine comes and goes.
"""

import dataclasses
import functools
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.console import quiet

PEAK = "matmul"
PEAK_SIZE = 2048
# Precision -> label of its product, which is the limit of what computes in it.
PEAKS = {"float32": PEAK, "bfloat16": "matmul bfloat16", "int8": "matmul int8"}
# Products of int8 in one call, so that making integers of floats hardly counts.
_CHAIN = 8
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
        peak: Label of the product that it is a share of.
    """

    name: str
    batch: int
    macs: int | None
    run: Callable[[], Any]
    peak: str = PEAK


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
        contenders: Contenders; those named in `PEAKS` set the limits.
        rounds: Number of times that each is timed.
        progress: Function that is called with the number of each round, or `None`.
        clock: Function that returns seconds, from `CLOCKS`.

    Returns:
        A `Timing` for each contender, in their order.
    """
    turns = {contender: turn_of(contender, clock) for contender in contenders}
    found = in_turns(turns, rounds, progress)
    peaks = {c.name: c for c in contenders if c.name in PEAKS.values()}
    timings = []
    for one in contenders:
        speeds = [values[one] for values in found]
        share, peak = None, peaks.get(one.peak)
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


def matmul_peak(precision: str = "float32", threads: int = 1) -> Contender:
    """Return the product of two 2048x2048 matrices: TensorFlow's, of int8 OpenVINO's.

    Args:
        precision: Key of `PEAKS`.
        threads: Threads of OpenVINO; TensorFlow's are set by `use_threads`.

    Raises:
        ImportError: If OpenVINO is needed and not installed.
    """
    import tensorflow as tf

    label = PEAKS[precision]
    if precision == "int8":
        run = _int8_product(threads)
        return Contender(label, _CHAIN, PEAK_SIZE**3, run, peak=label)
    factors = [tf.random.normal((PEAK_SIZE, PEAK_SIZE), seed=seed) for seed in (0, 1)]
    factors = [tf.cast(factor, precision) for factor in factors]
    product = functools.partial(tf.function(tf.matmul), *factors)
    return Contender(label, 1, PEAK_SIZE**3, lambda: product().numpy(), peak=label)


def _int8_product(threads):
    """Return a call of `_CHAIN` products, one behind the other."""
    import openvino as ov
    from openvino import opset13 as ops

    size = (PEAK_SIZE, PEAK_SIZE)
    random = np.random.default_rng(0)

    def quantised(x: Any, limit: float) -> Any:
        return ops.fake_quantize(x, -limit, limit, -limit, limit, levels=255)

    x = source = ops.parameter(size, np.float32)
    for _ in range(_CHAIN):
        # Products keep the variance of what they multiply.
        kernel = random.standard_normal(size, np.float32) * PEAK_SIZE**-0.5
        kernel = quantised(ops.constant(kernel), 5 * PEAK_SIZE**-0.5)
        x = ops.matmul(quantised(x, 5.0), kernel, False, False)
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = ov.Core().compile_model(ov.Model([x], [source]), "CPU", settings)
    images = random.standard_normal(size, np.float32)
    return lambda: compiled(images)


# What makes products of a precision fast, as Linux names it.
_FEATURES = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_bf16", "amx_int8", "asimd", "bf16", "i8mm", "sve"),
)
_CPU_INFO = Path("/proc/cpuinfo")


def cpu_flags() -> set[str] | None:
    """Return the CPU's flags, `None` where the system does not list them."""
    flags = _cpu_info(r"flags|Features")
    return None if flags is None else set(flags.split())


def processor() -> str:
    """Return the processor's name and the instructions that products are made of."""
    name = _cpu_info("model name") or platform.processor() or platform.machine()
    flags = cpu_flags() or ()
    return f"{name} ({' '.join(f for f in _FEATURES if f in flags) or 'unknown flags'})"


def _cpu_info(title):
    text = _CPU_INFO.read_text("utf-8") if _CPU_INFO.is_file() else ""
    found = re.search(rf"^(?:{title})\s*:\s*(.*)", text, re.MULTILINE)
    return found[1] if found else None
