"""What each of Keras' backends has its own way for: compiling, waiting, devices."""

import importlib
import os

import keras
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
