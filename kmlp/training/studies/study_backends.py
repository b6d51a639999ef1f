"""What studies ask of each of Keras' backends in its own way."""

import contextlib

import keras
import numpy as np
from keras import ops

from kmlp.benchmarking import devices


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
