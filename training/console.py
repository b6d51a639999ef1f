"""What a person at the terminal sees: our lines, none of the libraries' chatter."""

import os


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
    """Imports TensorFlow and Keras without the lines they write while loading."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    from kmlp.quiet import quiet

    with quiet():
        import tensorflow as tf

        tf.config.list_logical_devices()
    tf.get_logger().setLevel("ERROR")
