"""Peak memory of what a fresh process does.

On a CPU it is the resident set's, as Linux counts it: the most that was resident while
the work was repeated, less what was resident before its network was made. Weights,
gradients, the optimizer's moments and activations are in it, and what the backend keeps
for later: compiled programs, free memory that it does not give back. The interpreter
and the libraries are not, nor what compiling took and gave back.

On a GPU it is the most that the backend's own allocator had given out at once, less
what it had given out before. TensorFlow and PyTorch count the repeated work alone; JAX
cannot begin anew and counts from the process's start.
"""

import contextlib
import ctypes
import gc
from pathlib import Path

import keras

from kmlp.benchmarking.devices import gpu_name, inference

REPEATS = 3
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class ResidentSet:
    """The memory of this process that is resident."""

    def now(self):
        """Bytes."""
        return self._read("VmRSS")

    def peak(self):
        """Bytes, the most since the last `reset`."""
        return self._read("VmHWM")

    def reset(self):
        """Begins anew.

        Raises:
            OSError: the system cannot.
        """
        _give_back()
        _RESET.write_text("5")

    @staticmethod
    def _read(name):
        lines = _STATUS.read_text().splitlines()
        (line,) = (line for line in lines if line.startswith(f"{name}:"))
        return 1024 * int(line.split()[1])


class GPU:
    """The memory that the backend's allocator has given out."""

    def now(self):
        """Bytes."""
        return self._read()[0]

    def peak(self):
        """Bytes, the most since the last `reset`; with JAX since the start."""
        return self._read()[1]

    def reset(self):
        """Begins anew."""
        backend = keras.backend.backend()
        gc.collect()
        if backend == "tensorflow":
            import tensorflow as tf

            tf.config.experimental.reset_memory_stats("GPU:0")
        elif backend == "torch":
            import torch

            torch.cuda.reset_peak_memory_stats()

    @staticmethod
    def _read():
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


def peak_memory(make, xla, gauge=None):
    """Bytes that a call needs at its peak, its network's weights among them.

    `None` where the system does not tell: on a CPU without Linux' `/proc`.

    Args:
        make: makes the call, its network and its images.
        xla: whether XLA compiles the call; what that needs is loaded before.
        gauge: `ResidentSet` or `GPU`; `None`: by the device in use.
    """
    gauge = gauge or (GPU() if gpu_name() else ResidentSet())
    load_libraries(xla)
    try:
        gauge.reset()
    except OSError:
        return None
    before = gauge.now()
    run = make()
    run()
    gauge.reset()  # of what compiling took
    for _ in range(REPEATS):
        run()
    return gauge.peak() - before


def load_libraries(xla):
    """Runs a tiny network once, which is forgotten."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    values = keras.ops.ones((2, 8), "float32")
    keras.ops.convert_to_numpy(inference(model, xla)(values))


def _give_back():
    """Gives the system what was freed."""
    gc.collect()
    # Another C library has no such function.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
