"""What each of Keras' backends has its own way for: compiling, waiting, devices."""

import importlib
import os
import statistics
import time

import keras
import numpy as np
from keras import ops


def compiled(function, xla=None):
    """A function of tensors as the backend runs it, without gradients.

    Args:
        function: of tensors.
        xla: whether TensorFlow's graph is compiled by XLA, `None`: as it decides; JAX
            always is, PyTorch never.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jit(function)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=xla)
    import torch

    return torch.no_grad()(function)


def inference(model, xla=None):
    """A network's answer to a tensor of images, compiled."""
    if keras.backend.backend() != "jax":
        return compiled(lambda images: model(images, training=False), xla)
    # JAX would take variables for constants, and compile their values.
    step = compiled(
        lambda weights, others, images: model.stateless_call(
            weights, others, images, training=False
        )[0]
    )
    values = [
        [variable.value for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]
    return lambda images: step(*values, images)


def wait(tensor):
    """Until a matrix is there."""
    ops.convert_to_numpy(ops.cast(tensor[0, 0], "float32"))


def gpu_name():
    """The name of the GPU that the backend computes on; `None` without one."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return device.device_kind if device.platform != "cpu" else None
    if backend == "tensorflow":
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
        details = tf.config.experimental.get_device_details(found[0]) if found else {}
        return details.get("device_name", "a GPU") if found else None
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def device_name():
    """The device in use, as its maker calls it."""
    return gpu_name() or f"{os.cpu_count()} CPU cores"


def use_cores(threads):
    """Keeps this process, and the pools of threads it makes, on so many cores.

    Before anything has run: JAX takes as many threads as it has cores. Where a process
    cannot be kept on cores, JAX's number of threads stays its own.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:threads])
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from kmlp.benchmarking.measuring import use_threads

        use_threads(threads)
    elif backend == "torch":
        import torch

        torch.set_num_threads(threads)


def version():
    """The backend's version."""
    return importlib.import_module(keras.backend.backend()).__version__


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
