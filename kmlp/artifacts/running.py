"""What a model takes and gives, by name."""

import dataclasses
import inspect
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from kmlp.console import quiet
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


@dataclasses.dataclass(frozen=True)
class Runner:
    """An artifact's `serving_default` as a function of image arrays.

    It takes `(N, H, W, C)` with any N, goes through it in the artifact's own batch
    where that is fixed, and gives `{name: array}`.

    Attributes:
        run: function of one batch.
        input_shape: with the batch; `None` where a size is free.
        input_dtype: NumPy's.
        output_shapes: `{name: shape}`.
        tensors: of a SavedModel, `run` with tensors in and out, through which
            TensorFlow takes derivatives; `None` of TFLite, which has none.
    """

    run: Callable
    input_shape: tuple
    input_dtype: np.dtype
    output_shapes: dict
    tensors: Callable | None = None

    def __call__(self, images):
        images = np.asarray(images, self.input_dtype)
        if self.input_shape[0] is None:
            return self.run(images)
        parts = [self.run(batch) for batch in in_batches(images, self.input_shape[0])]
        return {
            key: np.concatenate([part[key] for part in parts])[: len(images)]
            for key in parts[0]
        }


def load_saved_model(folder):
    """A SavedModel as a `Runner`.

    Args:
        folder: of one version.
    """
    with quiet():
        loaded = tf.saved_model.load(str(folder))
    function = loaded.signatures["serving_default"]
    ((name, spec),) = function.structured_input_signature[1].items()
    # A signature does not keep alive the variables of its model.
    function.artifact = loaded

    def tensors(images):
        return function(**{name: images})

    def run(images):
        outputs = tensors(tf.convert_to_tensor(images))
        return {key: value.numpy() for key, value in outputs.items()}

    return Runner(
        run,
        _shape(spec.shape),
        np.dtype(spec.dtype.as_numpy_dtype),
        {k: _shape(v.shape) for k, v in function.structured_outputs.items()},
        tensors,
    )


def load_tflite(file, num_threads=None):
    """A TFLite file as a `Runner`, run by `ai_edge_litert`.

    Args:
        file: path of the file.
        num_threads: of the interpreter.
    """
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(str(file), num_threads=num_threads)
        runner = interpreter.get_signature_runner("serving_default")
    ((name, details),) = runner.get_input_details().items()

    def run(images):
        with quiet():  # delegates announce themselves with the first run
            return runner(**{name: images})

    return Runner(
        run,
        tuple(map(int, details["shape"])),
        np.dtype(details["dtype"]),
        {
            key: tuple(map(int, value["shape"]))
            for key, value in runner.get_output_details().items()
        },
    )


def repeatable(model, num_threads):
    """A call that runs a TFLite file on random numbers, after its first run.

    Args:
        model: path of the file, or its content as bytes.
        num_threads: of the interpreter.
    """
    from ai_edge_litert.interpreter import Interpreter

    content = isinstance(model, bytes)
    source = {"model_content": model} if content else {"model_path": str(model)}
    interpreter = Interpreter(**source, num_threads=num_threads)
    interpreter.allocate_tensors()
    random = np.random.default_rng(0)
    for entry in interpreter.get_input_details():
        values = random.normal(size=entry["shape"])
        if entry["dtype"] != np.float32:
            values = np.clip(values * 40, -128, 127)
        interpreter.set_tensor(entry["index"], values.astype(entry["dtype"]))
    interpreter.invoke()
    return interpreter.invoke


def _shape(shape):
    """A TensorFlow shape as a tuple; `None` as a whole where the rank is free."""
    return None if shape.rank is None else tuple(shape.as_list())


def in_batches(images, batch_size):
    """Batches of one size; the last is filled up with the first images."""
    count = -(-len(images) // batch_size)
    shape = images.shape[1:]
    filled = np.resize(images, (count * batch_size, *shape))
    return filled.reshape(count, batch_size, *shape)


def run_model(model, images):
    """A Keras model's inference outputs as `{name: array}`."""
    outputs = named_outputs(infer(model, tf.convert_to_tensor(images)))
    return {key: np.asarray(value) for key, value in outputs.items()}


def difference(actual, expected):
    """Largest difference over largest magnitude, over all outputs; NaN if any is.

    Args:
        actual, expected: `{name: array}` each.
    """
    worst = 0.0
    for key, value in expected.items():
        value = value.astype("float64")
        error = np.abs(actual[key] - value).max() / max(np.abs(value).max(), 1e-30)
        worst = np.maximum(worst, error)  # which lets NaN through
    return float(worst)
