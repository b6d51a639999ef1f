"""NumPy functions within a data set, and the end of the process."""

import atexit
import threading
import time

import numpy as np
import tensorflow as tf

# How long nothing has been called when nothing will be, in seconds.
QUIET = 0.1
LONGEST = 10


class _Calls:
    """Those in progress: TensorFlow's threads wait for ever for a Python that ended."""

    def __init__(self):
        self.lock = threading.Lock()
        self.active, self.last, self.closing = 0, 0.0, False

    def __enter__(self):
        with self.lock:
            self.active += 1
        if self.closing:
            self.__exit__()
            raise RuntimeError("The process ends.")

    def __exit__(self, *error):
        with self.lock:
            self.active -= 1
            self.last = time.monotonic()

    def close(self):
        """Refuses further calls and waits until no one asks."""
        self.closing = True
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            with self.lock:
                if not self.active and time.monotonic() - self.last > QUIET:
                    return
            time.sleep(QUIET / 10)


_CALLS = _Calls()
atexit.register(_CALLS.close)


def in_graph(function, spec):
    """A function of Python integers to arrays as one of tensors to tensors.

    Args:
        function: of any number of integers, to a sequence of arrays.
        spec: `[(shape, type)]` of them; `None` in a shape: unknown.
    """
    types = [dtype for _, dtype in spec]

    def arrays(*numbers):
        with _CALLS:
            found = function(*map(int, numbers))
            return [np.asarray(part, dtype) for part, dtype in zip(found, types)]

    def tensors(*numbers):
        parts = tf.numpy_function(arrays, numbers, types)
        return [tf.ensure_shape(part, shape) for part, (shape, _) in zip(parts, spec)]

    return tensors
