"""Compile, wait and choose devices as each of Keras' backends does it."""

import contextlib
import ctypes
import gc
import importlib
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.benchmarking.measuring import seconds, use_threads
from kmlp.typing import Tensor


def compiled(function: Callable, xla: bool | None = None) -> Callable:
    """Return a function of tensors as the backend runs it, without gradients.

    Args:
        function: Function of tensors.
        xla: Whether TensorFlow's graph is compiled by XLA, `None`: as it decides; JAX
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


def inference(
    model: keras.Model, xla: bool | None = None
) -> Callable[[Tensor], Tensor]:
    """Return a network's answer to a tensor of images, compiled."""
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


def answering(answer: Callable[[Tensor], Any], images: np.ndarray) -> Callable[[], Any]:
    """Return a call that ends when the answer to images is there, as NumPy arrays."""
    tensor = ops.convert_to_tensor(images)
    return lambda: keras.tree.map_structure(ops.convert_to_numpy, answer(tensor))


def wait(tensor: Tensor) -> None:
    """Wait until a matrix is there."""
    ops.convert_to_numpy(ops.cast(tensor[0, 0], "float32"))


def gpu_name() -> str | None:
    """Return the name of the GPU that the backend computes on; `None` without one."""
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


def device_name() -> str:
    """Return the device in use, as its maker calls it."""
    return gpu_name() or f"{os.cpu_count()} CPU cores"


def usable_cores() -> int:
    """Return how many cores this process may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_cores(threads: int) -> None:
    """Keep this process, and the pools of threads it makes, on so many cores.

    Before anything has run: JAX takes as many threads as it has cores. Where a process
    cannot be kept on cores, JAX's number of threads stays its own.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:threads])
    backend = keras.backend.backend()
    if backend == "tensorflow":
        use_threads(threads)
    elif backend == "torch":
        import torch

        torch.set_num_threads(threads)


def version() -> str:
    """Return the backend's version."""
    return importlib.import_module(keras.backend.backend()).__version__


SECONDS = 1.0  # of one measurement
ROUNDS = 5
# Products of one program, so that its start is not measured.
CHAIN = 8
SMALLEST_MATRIX, LARGEST_MATRIX = 1024, 16384


class Peak:
    """Operations per second of large square matrix products on the device in use.

    Args:
        precision: Compute precision, `"float32"`, `"bfloat16"` or `"float16"`.
        seconds: Seconds of one measurement; `None`: `SECONDS`.
        smallest: Size of the first matrices; `None`: `SMALLEST_MATRIX`.

    Attributes:
        value: Speed of the fastest measurement so far, each the median of some turns;
            0 before the first.
    """

    def __init__(
        self,
        precision: str,
        seconds: float | None = None,
        smallest: int | None = None,
    ):
        self.precision = precision
        self.value = 0.0
        self._seconds = seconds or SECONDS
        self._smallest = smallest or SMALLEST_MATRIX
        self._sizes: dict[int, Callable[[], None]] = {}

    def measure(self) -> float:
        """Measure once more and return the value."""
        self.turn()
        return self.value

    def turn(self) -> float:
        """Measure once more and return what this measurement was.

        The first time sizes double until a product takes long, then the best is kept:
        a machine that was busy then may be idle now.
        """
        if not self._sizes:
            size = self._smallest
            while size <= LARGEST_MATRIX:
                self._sizes[size] = self._product(size)
                if self._speed(size)[1] > self._seconds:
                    break
                size *= 2
            speeds = {size: self._speed(size)[0] for size in self._sizes}
            best = max(speeds, key=lambda size: speeds[size])
            self._sizes = {best: self._sizes[best]}
        found = max(self._speed(size)[0] for size in self._sizes)
        self.value = max(self.value, found)
        return found

    def _product(self, size):
        """Return a function without arguments that takes `CHAIN` products."""
        random = np.random.default_rng(0)
        # Scaled so that products keep their variance.
        a, b = (
            ops.cast(
                random.standard_normal((size, size), np.float32) * size**-power,
                self.precision,
            )
            for power in (0, 0.5)
        )

        def _chain(a, b):
            for _ in range(CHAIN):
                a = ops.matmul(a, b)
            return a

        product = compiled(_chain)
        wait(product(a, b))
        return lambda: wait(product(a, b))

    def _speed(self, size):
        """Return operations per second, and the seconds of a turn."""
        times: list[float] = []
        while len(times) < ROUNDS and sum(times) < 2 * self._seconds:
            times.append(seconds(self._sizes[size]))
        taken = statistics.median(times)
        return CHAIN * 2 * size**3 / taken, taken


# Peak memory.

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class ResidentSet:
    """The memory of this process that is resident, as Linux counts it.

    Weights, gradients, the optimizer's moments and activations are in it, and what the
    backend keeps for later: compiled programs, free memory that it does not give back.
    """

    def read(self) -> tuple[int, int]:
        """Return the bytes now, and the most since the last `reset`."""
        found = dict(
            line.split(":", 1)
            for line in _STATUS.read_text("utf-8").splitlines()
            if line
        )
        now, most = (1024 * int(found[n].split()[0]) for n in ("VmRSS", "VmHWM"))
        return now, most

    def reset(self) -> None:
        """Begin anew.

        Raises:
            OSError: If the system cannot.
        """
        gc.collect()
        # Another C library has no such function.
        with contextlib.suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
        _RESET.write_text("5", "utf-8")


class GPUMemory:
    """The memory that the backend's own allocator has given out.

    TensorFlow and PyTorch count from the last `reset`. JAX cannot begin anew and counts
    from the process's start.
    """

    def read(self) -> tuple[int, int]:
        """Return the bytes now, and the most that was given out at once."""
        backend = keras.backend.backend()
        if backend == "tensorflow":
            import tensorflow as tf

            found = tf.config.experimental.get_memory_info("GPU:0")
            return found["current"], found["peak"]
        if backend == "jax":
            import jax

            found = jax.devices()[0].memory_stats()
            return found["bytes_in_use"], found["peak_bytes_in_use"]
        import torch

        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()

    def reset(self) -> None:
        """Begin anew."""
        backend = keras.backend.backend()
        gc.collect()
        if backend == "tensorflow":
            import tensorflow as tf

            tf.config.experimental.reset_memory_stats("GPU:0")
        elif backend == "torch":
            import torch

            torch.cuda.reset_peak_memory_stats()
