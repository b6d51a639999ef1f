"""What studies ask of each of Keras' backends in its own way."""

import contextlib
import statistics
import time

import keras
import numpy as np
from keras import ops

from kmlp.analysis.complexity import profile
from kmlp.benchmarking import devices
from kmlp.benchmarking.devices import ROUNDS, SECONDS


def tensorflow_data(batches):
    """A `tf.data.Dataset` of what an iterable gives, as TensorFlow's engine takes it.

    Args:
        batches: function that makes an iterable of tuples of arrays, each as the first.
    """
    import tensorflow as tf

    first = next(iter(batches()))
    signature = tuple(tf.TensorSpec(array.shape, array.dtype) for array in first)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return dataset.prefetch(2)


@contextlib.contextmanager
def exact():
    """Inside, float32 products are float32: GPUs would round their factors."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
        return
    if backend == "tensorflow":
        import tensorflow as tf

        before = tf.config.experimental.tensor_float_32_execution_enabled()
        switch = tf.config.experimental.enable_tensor_float_32_execution
    else:
        import torch

        before = torch.backends.cudnn.allow_tf32

        def switch(value):
            torch.backends.cudnn.allow_tf32 = value

    switch(False)
    try:
        yield
    finally:
        switch(before)


def inference(model):
    """What a network answers to images, `(N, …) -> (N, …)` of NumPy, compiled."""
    step = devices.inference(model)

    def answers(images):
        with exact():
            found = step(ops.convert_to_tensor(images))
        return np.asarray(ops.convert_to_numpy(found), "float32")

    return answers


# A forward pass, and twice as much for the gradients of inputs and weights; each
# multiply-add is two operations.
OPERATIONS = 3 * 2


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
        counted = profile(self.engine.model)
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
        peak: a `kmlp.benchmarking.devices.Peak`.
    """
    watch = Stopwatch(job)
    for _ in range(ROUNDS):
        # In turns: what slows the machine slows both.
        watch.turn()
        peak.measure()
    watch.close()
    return watch.figures(macs, peak.value)


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
