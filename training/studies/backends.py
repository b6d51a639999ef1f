"""The few things that each of Keras' backends has its own way for."""

import contextlib
import os

import keras
import numpy as np
from keras import ops


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


def compiled(function):
    """A function of tensors as the backend runs it fastest, without gradients."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jit(function)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    import torch

    return torch.no_grad()(function)


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

    def answer(weights, others, images):
        return model.stateless_call(weights, others, images, training=False)[0]

    step = compiled(answer)
    values = [
        [ops.convert_to_tensor(v.value) for v in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    def answers(images):
        with exact():
            found = step(*values, ops.convert_to_tensor(images))
        return np.asarray(ops.convert_to_numpy(found), "float32")

    return answers


def wait(tensor):
    """Until a matrix is there."""
    ops.convert_to_numpy(ops.cast(tensor[0, 0], "float32"))


def device_name():
    """The device in use, as its maker calls it."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        name = device.device_kind if device.platform != "cpu" else None
    elif backend == "tensorflow":
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
        details = tf.config.experimental.get_device_details(found[0]) if found else {}
        name = details.get("device_name")
    else:
        import torch

        name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return name or f"{os.cpu_count()} CPU cores"
