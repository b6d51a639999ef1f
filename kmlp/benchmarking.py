"""Inference speed, as images per second and as a share of the machine's limit.

Everything that is compared runs in turns within one process, in a new random
order every round, and the machine's matrix product runs among it: medians and
their ratios then hold although other work on the machine comes and goes.
"""

import dataclasses
import random
import statistics
import tempfile
import time

import numpy as np

from kmlp.quiet import quiet

PEAK = "matmul"
_PEAK_SIZE = 2048
_LEAST_SECONDS = 0.1


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
    """A contender's median speed.

    Attributes:
        images_per_second: median over the rounds.
        share: of the matrix product's multiply-adds per second, the median of the
            ratios within a round; `None` without multiply-adds.
    """

    name: str
    batch: int
    images_per_second: float
    share: float | None


def measure(contenders, rounds=10, progress=None):
    """Times contenders in interleaved rounds.

    Args:
        contenders: list of `Contender`; one named `PEAK` sets the limit.
        rounds: how often each is timed.
        progress: called with the number of the finished round, or `None`.

    Returns:
        A list of `Timing`, one per contender, in their order.
    """
    repeats = {}
    for contender in contenders:
        contender.run()  # traces, compiles, packs weights
        start = time.perf_counter()
        contender.run()
        seconds = time.perf_counter() - start
        repeats[contender] = max(1, round(_LEAST_SECONDS / max(seconds, 1e-6)))
    speeds = {contender: [] for contender in contenders}
    for turn in range(rounds):
        for contender in random.sample(contenders, len(contenders)):
            start = time.perf_counter()
            for _ in range(repeats[contender]):
                contender.run()
            seconds = time.perf_counter() - start
            speeds[contender].append(contender.batch * repeats[contender] / seconds)
        if progress is not None:
            progress(turn + 1)
    peak = next((c for c in contenders if c.name == PEAK), None)
    return [
        Timing(
            contender.name,
            contender.batch,
            statistics.median(speeds[contender]),
            _share(contender, speeds[contender], peak, speeds.get(peak)),
        )
        for contender in contenders
    ]


def _share(contender, speeds, peak, peak_speeds):
    if peak is None or contender.macs is None:
        return None
    return statistics.median(
        speed * contender.macs / (limit * peak.macs)
        for speed, limit in zip(speeds, peak_speeds, strict=True)
    )


def use_threads(threads):
    """Sets TensorFlow's threads, before anything runs, and quiets its advice."""
    import tensorflow as tf

    # Every contender is a function of its own, which it takes for retracing.
    tf.get_logger().setLevel("ERROR")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    with quiet():
        tf.config.list_logical_devices()


def matmul_peak():
    """TensorFlow's float32 product of two 2048x2048 matrices, as a contender."""
    import tensorflow as tf

    a, b = (tf.random.normal((_PEAK_SIZE, _PEAK_SIZE), seed=seed) for seed in (0, 1))
    product = tf.function(tf.matmul)
    return Contender(PEAK, 1, _PEAK_SIZE**3, lambda: product(a, b).numpy())


def keras_contender(label, model, batch, macs, *, jit_compile):
    """A Keras model's inference in graph mode or compiled by XLA."""
    import tensorflow as tf

    call = tf.function(lambda x: model(x, training=False), jit_compile=jit_compile)
    images = tf.constant(_images(model, batch))
    return Contender(label, batch, macs, lambda: call(images).numpy())


def tflite_contender(label, path, batch, macs, threads):
    """A TFLite file run by `ai_edge_litert`."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    shape = entry["shape"]
    images = np.random.default_rng(0).normal(size=shape).astype(entry["dtype"])

    def run():
        interpreter.set_tensor(entry["index"], images)
        interpreter.invoke()

    return Contender(label, batch, macs, run)


def benchmark(name, *, batches=(1, 8), rounds=10, threads=2, further=(), **arguments):
    """Train form and merged form of an architecture: graph, XLA and TFLite.

    Args:
        name: an architecture, see `kmlp.list_models()`.
        batches: batch sizes.
        rounds: interleaved rounds.
        threads: of the TFLite interpreter; TensorFlow's are set by the caller.
        further: contenders of the caller's own, timed in the same rounds.
        **arguments: of `kmlp.create_model`.

    Returns:
        A list of `Timing`, the matrix product first.
    """
    import kmlp

    model = kmlp.create_model(name, **arguments)
    _fill_zeros(model)
    merged = kmlp.merge(model)
    contenders = [matmul_peak()]
    with tempfile.TemporaryDirectory() as folder:
        for batch in batches:
            for form, network in (("train form", model), ("merged", merged)):
                macs = kmlp.profile(network).macs
                for mode, jit_compile in (("graph", False), ("XLA", True)):
                    label = f"{form}, {mode}"
                    contenders.append(
                        keras_contender(
                            label, network, batch, macs, jit_compile=jit_compile
                        )
                    )
            path = kmlp.export.tflite(
                model, f"{folder}/{batch}.tflite", batch_size=batch
            )
            contenders.append(
                tflite_contender("merged, TFLite", path, batch, macs, threads)
            )
        with quiet():  # XLA and the delegates announce themselves
            return measure([*contenders, *further], rounds)


def _images(model, batch):
    shape = (batch, *model.inputs[0].shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def _fill_zeros(model):
    """Fresh biases are zero, and graph optimisers remove what adds nothing."""
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if not np.any(np.asarray(weight)):
            weight.assign(generator.normal(0, 0.02, weight.shape))


def table(timings):
    """Timings as aligned text."""
    rows = [("", "batch", "images/s", "share of matmul")]
    for timing in timings:
        if timing.name == PEAK:
            gigaflops = 2 * _PEAK_SIZE**3 * timing.images_per_second / 1e9
            rows.append((f"{PEAK} {_PEAK_SIZE}", "", f"{gigaflops:.0f} GFLOP/s", ""))
            continue
        share = "" if timing.share is None else f"{timing.share:.0%}"
        speed = f"{timing.images_per_second:.1f}"
        rows.append((timing.name, str(timing.batch), speed, share))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )
