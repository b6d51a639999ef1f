"""What a model takes and gives, by name."""

import inspect

import keras
import tensorflow as tf

from kmlp.errors import InputError


def input_specs(model, *, batch_size=None, input_shape=None):
    """The model's inputs as float32 `TensorSpec`s (integers stay integers).

    Args:
        model: a built `keras.Model`.
        batch_size: `None` leaves the batch free.
        input_shape: shape without batch in place of a single input's own.

    Returns:
        A list in the order of `keras.tree.flatten(model.input)`.

    Raises:
        InputError: the shape of a subclassed model's inputs is not known.
    """
    specs = []
    inputs = keras.tree.flatten(_inputs(model))
    for index, tensor in enumerate(inputs):
        shape = tuple(tensor.shape[1:] if input_shape is None else input_shape)
        dtype = "float32" if "float" in tensor.dtype else tensor.dtype
        name = tensor.name
        if name.startswith("keras_tensor"):  # numbered anew in every session
            name = "inputs" if len(inputs) == 1 else f"inputs_{index}"
        specs.append(tf.TensorSpec((batch_size, *shape), dtype, name=name))
    return specs


def serving_function(model, specs):
    """A `tf.function` over the inputs in inference mode.

    Returns:
        A function that takes one tensor per spec and gives `{name: tensor}`:
        `output_0`, … or the keys of a model that answers with a dictionary.
    """

    def serve(*inputs):
        return named_outputs(call_flat(model, inputs))

    return tf.function(serve, input_signature=specs, autograph=False)


def call_flat(model, inputs):
    """Calls a model in inference mode on the list of its inputs."""
    return infer(model, keras.tree.pack_sequence_as(_inputs(model), inputs))


def infer(model, inputs):
    """Calls a model in inference mode."""
    if "training" in inspect.signature(model.call).parameters:
        return model(inputs, training=False)
    return model(inputs)


def named_outputs(outputs):
    """A model's outputs as a flat dictionary."""
    if isinstance(outputs, dict) and not any(
        keras.tree.is_nested(value) for value in outputs.values()
    ):
        return dict(outputs)
    flat = keras.tree.flatten(outputs)
    return {f"output_{index}": value for index, value in enumerate(flat)}


def _inputs(model):
    if isinstance(model, keras.Sequential) and model.inputs:
        return model.inputs[0]
    if getattr(model, "inputs", None):
        return model.input
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise InputError(
            "The shapes of this model's inputs are not known: call it on one batch of "
            f"a single tensor, or make it functional. Received: {model.name!r}"
        )
    return keras.KerasTensor(shape, name="inputs")
