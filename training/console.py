"""What a person at the terminal sees: our lines, none of the libraries' chatter."""

import os
import sys


class Stop(Exception):
    """Ends the job with one line for the person who started it.

    Args:
        message: what was wrong and the remedy; line breaks become spaces.
        code: the process's exit code, 2 for input that cannot be worked with.
    """

    def __init__(self, message, code=2):
        super().__init__(" ".join(str(message).split()))
        self.code = code


def import_quietly():
    """Imports TensorFlow and Keras without the lines they write while loading.

    The first lines of TensorFlow's C++ libraries ignore its log level, so that
    only the descriptor of standard error can hold them back.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    sys.stderr.flush()
    original = os.dup(2)
    with open(os.devnull, "wb") as sink:
        os.dup2(sink.fileno(), 2)
    try:
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_logical_devices()
        tf.get_logger().setLevel("ERROR")
    finally:
        os.dup2(original, 2)
        os.close(original)
