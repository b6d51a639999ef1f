"""Run a network in its forms as functions of images, and time them.

The forms are a Keras model, a SavedModel and a TFLite file.
"""

import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kmlp.console import first_line, quiet
from kmlp.divergence import infer, inputs_of, relative_difference
from kmlp.errors import InputError, RunError
from kmlp.typing import PathLike

Answers = dict[str, np.ndarray]

THREADS = (1, 2)
ROUNDS, LEAST_ROUNDS = 50, 5
SECONDS = 1.0  # for a file and a number of threads
LATENCY_BATCHES = (1, 8)
LATENCY_ROUNDS, LEAST_LATENCY_ROUNDS = 30, 3
LATENCY_SECONDS = 5.0
ANY_BATCH, FIXED_BATCH = "any", "fixed"
# Between the answers of a TFLite file in batches of two sizes. In another batch other
# loops run, whose last bits may round an integer to the next; a wrong answer errs by 1.
BATCH_TOLERANCE = 0.02


def input_specs(
    model: keras.Model,
    *,
    batch_size: int | None = None,
    input_shape: Sequence[int] | None = None,
) -> list[tf.TensorSpec]:
    """Return the model's inputs as float32 `TensorSpec`s (integers stay integers).

    Args:
        model: Model that is built.
        batch_size: Size of the batch; `None` leaves it free.
        input_shape: Shape without batch in place of a single input's own.

    Returns:
        A list in the order of `keras.tree.flatten(model.input)`.

    Raises:
        InputError: If the shape of a subclassed model's inputs is not known, or they
            are no numbers.
    """
    specs = []
    inputs = keras.tree.flatten(inputs_of(model))
    for index, tensor in enumerate(inputs):
        shape = tuple(tensor.shape[1:] if input_shape is None else input_shape)
        dtype = "float32" if "float" in str(tensor.dtype) else tensor.dtype
        if dtype == "string":
            raise InputError(
                "Artifacts take numbers, with which they are compared: export the "
                "model behind its layers for text. Received: an input of dtype string"
            )
        name = tensor.name
        if name.startswith("keras_tensor"):  # numbered anew in every session
            name = "inputs" if len(inputs) == 1 else f"inputs_{index}"
        specs.append(tf.TensorSpec((batch_size, *shape), dtype, name=name))
    return specs


def serving_function(model: keras.Model, specs: Sequence[tf.TensorSpec]) -> Callable:
    """Return a `tf.function` over the inputs in inference mode.

    Returns:
        A function that takes one tensor per spec and gives `{name: tensor}`:
        `output_0`, … or the keys of a model that answers with a dictionary.
    """

    def serve(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return named_outputs(call_flat(model, inputs))

    return tf.function(serve, input_signature=specs, autograph=False)


def call_flat(model: keras.Model, inputs: Sequence[Any]) -> Any:
    """Call a model in inference mode on the list of its inputs."""
    return infer(model, keras.tree.pack_sequence_as(inputs_of(model), inputs))


def named_outputs(outputs: Any) -> dict[str, Any]:
    """Return a model's outputs as a flat dictionary."""
    if isinstance(outputs, dict) and not any(
        keras.tree.is_nested(value) for value in outputs.values()
    ):
        return dict(outputs)
    flat = keras.tree.flatten(outputs)
    return {f"output_{index}": value for index, value in enumerate(flat)}


def run_model(model: keras.Model, images: np.ndarray) -> Answers:
    """Return a Keras model's inference outputs as `{name: array}`."""
    outputs = named_outputs(infer(model, tf.convert_to_tensor(images)))
    return {key: np.asarray(value) for key, value in outputs.items()}


@dataclasses.dataclass(frozen=True)
class Runner:
    """An artifact's `serving_default` as a function of image arrays.

    It takes `(N, H, W, C)` with any N, goes through it in the artifact's own batch
    where that is fixed, and gives `{name: array}`.

    Attributes:
        run: Function of one batch.
        input_shape: Shape with the batch; `None` where a size is free.
        input_dtype: NumPy's type of the input.
        output_shapes: Shapes by name.
        tensors: Of a SavedModel, `run` with tensors in and out, through which
            TensorFlow takes derivatives; `None` of TFLite, which has none.
    """

    run: Callable[[np.ndarray], Answers]
    input_shape: tuple
    input_dtype: np.dtype
    output_shapes: dict[str, tuple]
    tensors: Callable | None = None

    def __call__(self, images: Any) -> Answers:
        images = np.asarray(images, self.input_dtype)
        try:
            return self._run(images)
        except (RuntimeError, ValueError, tf.errors.OpError) as error:
            raise RunError(
                "This network does not run: it is damaged, or uses what is not "
                f"installed here; export it again. ({first_line(error)[:300]})"
            ) from error

    def _run(self, images):
        if self.input_shape[0] is None:
            return self.run(images)
        parts = [self.run(batch) for batch in in_batches(images, self.input_shape[0])]
        return {
            key: np.concatenate([part[key] for part in parts])[: len(images)]
            for key in parts[0]
        }


def load_saved_model(folder: PathLike) -> Runner:
    """Load the SavedModel in a version's folder."""
    with quiet():
        loaded = tf.saved_model.load(str(folder))
    function = loaded.signatures["serving_default"]
    ((name, spec),) = function.structured_input_signature[1].items()
    # A signature does not keep alive the variables of its model.
    function.artifact = loaded

    def tensors(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return function(**{name: images})

    def run(images: np.ndarray) -> Answers:
        outputs = tensors(tf.convert_to_tensor(images))
        return {key: value.numpy() for key, value in outputs.items()}

    return Runner(
        run,
        _shape(spec.shape),
        np.dtype(spec.dtype.as_numpy_dtype),
        {k: _shape(v.shape) for k, v in function.structured_outputs.items()},
        tensors,
    )


def load_tflite(file: PathLike, num_threads: int | None = None) -> Runner:
    """Load a TFLite file, run by `ai_edge_litert`.

    Args:
        file: Path of the file.
        num_threads: Threads of the interpreter; `None`: its own choice.
    """
    with quiet():
        interpreter = _interpreter(file, num_threads)
        runner = interpreter.get_signature_runner("serving_default")
    ((name, details),) = runner.get_input_details().items()

    def run(images: np.ndarray) -> Answers:
        with quiet():  # delegates announce themselves with the first run
            return runner(**{name: images})

    free = details["shape_signature"][:1].tolist() == [-1]
    shape = tuple(map(int, details["shape"]))
    return Runner(
        run,
        (None, *shape[1:]) if free else shape,
        np.dtype(details["dtype"]),
        {
            key: tuple(map(int, value["shape"]))
            for key, value in runner.get_output_details().items()
        },
    )


def batch_of(file: PathLike) -> str:
    """Try whether a TFLite file takes batches of another size than its own.

    `resize_tensor_input` takes any size, but the converter may have written the file's
    own into the shapes within.

    Args:
        file: Path of the file.

    Returns:
        `ANY_BATCH`, or `FIXED_BATCH` where it fails or answers otherwise.
    """
    runner = load_tflite(file)
    own, *shape = (size or 1 for size in runner.input_shape)
    images = np.random.default_rng(0).normal(size=(own + 2, *shape))
    if runner.input_dtype.kind != "f":
        images = np.zeros_like(images)
    images = images.astype(runner.input_dtype)
    expected = dataclasses.replace(runner, input_shape=(own, *shape))(images)
    try:
        with quiet(everything=True):
            found = runner.run(images)
    except (RuntimeError, ValueError):
        return FIXED_BATCH
    near = (
        found[key].shape == value.shape
        and relative_difference(found[key], value) <= BATCH_TOLERANCE
        for key, value in expected.items()
    )
    return ANY_BATCH if all(near) else FIXED_BATCH


def repeatable(model: PathLike | bytes, num_threads: int) -> Callable[[], None]:
    """Return a call that runs a TFLite file on random numbers, after its first run.

    Args:
        model: Path of the file, or its content as bytes.
        num_threads: Threads of the interpreter.
    """
    interpreter = _interpreter(model, num_threads)
    interpreter.allocate_tensors()
    normal = np.random.default_rng(0).normal
    for entry in interpreter.get_input_details():
        values = normal(size=entry["shape"])
        if entry["dtype"] != np.float32:
            values = np.clip(values * 40, -128, 127)
        interpreter.set_tensor(entry["index"], values.astype(entry["dtype"]))
    interpreter.invoke()
    return interpreter.invoke


def _interpreter(model, num_threads):
    from ai_edge_litert.interpreter import Interpreter

    content = isinstance(model, bytes)
    source = {"model_content": model} if content else {"model_path": str(model)}
    return Interpreter(**source, num_threads=num_threads)


def _shape(shape):
    """Return a TensorFlow shape as a tuple; `None` as a whole if the rank is free."""
    return None if shape.rank is None else tuple(shape.as_list())


def in_batches(images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return batches of one size; the last is filled up with the first images."""
    count = -(-len(images) // batch_size)
    shape = images.shape[1:]
    filled = np.resize(images, (count * batch_size, *shape))
    return filled.reshape(count, batch_size, *shape)


def latencies(files: dict[str, Path]) -> dict[str, dict[int, float]]:
    """Time TFLite files on their own batch, all of them taking turns.

    Args:
        files: Paths by name.

    Returns:
        Latencies as `{name: {threads: median milliseconds}}`.
    """
    with quiet():  # delegates announce themselves
        calls = {
            (name, threads): repeatable(path, threads)
            for name, path in files.items()
            for threads in THREADS
        }
        found = _medians(calls, ROUNDS, LEAST_ROUNDS, SECONDS * len(calls))
    return {name: {n: found[name, n] for n in THREADS} for name in files}


def model_latencies(models: dict[str, keras.Model]) -> dict[str, dict[int, float]]:
    """Time models of the same fixed input, all of them taking turns.

    Args:
        models: Models by name.

    Returns:
        Latencies as `{name: {batch size: median milliseconds}}`.
    """
    functions = {
        name: tf.function(lambda x, model=model: model(x, training=False))
        for name, model in models.items()
    }
    shape = next(iter(models.values())).inputs[0].shape[1:]
    result: dict[str, dict[int, float]] = {name: {} for name in models}
    for batch in LATENCY_BATCHES:
        images = keras.random.normal((batch, *shape), seed=0)
        calls = {
            name: lambda function=function, images=images: function(images).numpy()
            for name, function in functions.items()
        }
        for call in calls.values():
            call()  # traces
        limits = LATENCY_ROUNDS, LEAST_LATENCY_ROUNDS, LATENCY_SECONDS
        for name, milliseconds in _medians(calls, *limits).items():
            result[name][batch] = milliseconds
    return result


def _medians(calls, rounds, least, seconds):
    """Return `{name: median milliseconds}` of calls that take turns in any order."""
    times = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    for turn in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
        if turn + 1 >= least and time.perf_counter() > end:
            break
    return {name: 1000 * statistics.median(found) for name, found in times.items()}
