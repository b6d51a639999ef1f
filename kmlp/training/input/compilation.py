"""XLA for the host's processor."""

import tensorflow as tf


def compiled(function):
    """The function as one compiled kernel, several times as fast as its ops.

    On the hosts of TPUs the compiler serves the TPU alone: there the ops run one by
    one, with the same result.

    Args:
        function: of tensors, whose shapes follow from those of its arguments.
    """
    return tf.function(function, jit_compile=not tf.config.list_logical_devices("TPU"))
