"""Run a network in its forms as functions of images, and time them."""

import dataclasses
import functools
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kmlp.artifacts import onnx_file, openvino_model
from kmlp.artifacts.locating import ONNX, SAVED_MODEL, TFLITE, locate
from kmlp.artifacts.runner import Answers, Runner
from kmlp.console import quiet
from kmlp.divergence import infer, inputs_of, relative_difference
from kmlp.errors import InputError
from kmlp.typing import PathLike

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
    """Call a model in inference mode on the list of its inputs; floats are float32."""
    outputs = infer(model, keras.tree.pack_sequence_as(inputs_of(model), inputs))
    return keras.tree.map_structure(_in_float32, outputs)


def _in_float32(value):
    floats = keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype))
    return keras.ops.cast(value, "float32") if floats else value


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


def repeatable(
    path: PathLike, num_threads: int, batch: int = 1, side: int | None = None
) -> Callable[[], Any]:
    """Return a call that runs an artifact on random numbers, after its first run.

    Args:
        path: Path as in `kmlp.artifacts.locating.locate`.
        num_threads: Threads of its runtime.
        batch: Images at once, where the artifact leaves that free.
        side: Side of the images, where the artifact leaves that free.
    """
    found, form = locate(path)
    if form == TFLITE:
        return repeatable_tflite(found, num_threads)
    if form == SAVED_MODEL:
        call, shape, dtype = _session_call(found, num_threads)
    else:
        module = onnx_file if form == ONNX else openvino_model
        runner = module.load(found, num_threads)
        call, shape, dtype = runner.run, runner.input_shape, runner.input_dtype
    sizes = (shape[0] or batch, *(size or side or 1 for size in shape[1:]))
    images = np.random.default_rng(0).normal(size=sizes).astype(dtype)
    call(images)
    return functools.partial(call, images)


def _session_call(folder, num_threads):
    """Return `serving_default` in a session of its own threads, and its input."""
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=num_threads,
        inter_op_parallelism_threads=1,
        use_per_session_threads=True,
    )
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    with quiet(), session.graph.as_default():
        loaded = tf.compat.v1.saved_model.load(
            session, [tf.saved_model.SERVING], str(folder)
        )
    signature = loaded.signature_def["serving_default"]
    (source,) = signature.inputs.values()
    names = [info.name for info in signature.outputs.values()]
    call = session.make_callable(names, feed_list=[source.name])
    sizes = tuple(dim.size for dim in source.tensor_shape.dim)
    shape = tuple(None if size < 0 else size for size in sizes)
    return call, shape, tf.as_dtype(source.dtype).as_numpy_dtype


def repeatable_tflite(model: PathLike | bytes, num_threads: int) -> Callable[[], None]:
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


def latencies(
    files: dict[str, Path], side: int | None = None
) -> dict[str, dict[int, float]]:
    """Time artifacts on one image, all of them taking turns.

    Args:
        files: Paths by name.
        side: Side of the images, where an artifact leaves that free.

    Returns:
        Latencies as `{name: {threads: median milliseconds}}`.
    """
    with quiet():  # delegates announce themselves
        calls = {
            (name, threads): repeatable(path, threads, side=side)
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
