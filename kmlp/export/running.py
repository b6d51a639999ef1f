"""Running artifacts, as what they are checked and evaluated by."""

import numpy as np
import tensorflow as tf

from kmlp.export.signature import infer, named_outputs
from kmlp.quiet import quiet


def load_saved_model(folder):
    """A SavedModel's `serving_default` as a function of image arrays.

    Args:
        folder: of one version.

    Returns:
        A function that takes `(N, H, W, C)` and gives `{name: array}`.
    """
    with quiet():
        loaded = tf.saved_model.load(str(folder))
    function = loaded.signatures["serving_default"]
    (name,) = function.structured_input_signature[1]
    # A signature does not keep alive the variables of its model.
    function.artifact = loaded

    def run(images):
        outputs = function(**{name: tf.convert_to_tensor(images)})
        return {key: value.numpy() for key, value in outputs.items()}

    return run


def load_tflite(file, num_threads=None):
    """A TFLite file as a function of image arrays, run by `ai_edge_litert`.

    Args:
        file: path of the file.
        num_threads: of the interpreter.

    Returns:
        A function that takes `(N, H, W, C)` with any N, goes through it in the
        file's static batch, and gives `{name: array}`.
    """
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(str(file), num_threads=num_threads)
        runner = interpreter.get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    batch_size = int(runner.get_input_details()[name]["shape"][0])

    def run(images):
        images = np.asarray(images, "float32")
        with quiet():  # delegates announce themselves with the first run
            parts = [runner(**{name: b}) for b in in_batches(images, batch_size)]
        return {
            key: np.concatenate([part[key] for part in parts])[: len(images)]
            for key in parts[0]
        }

    return run


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
