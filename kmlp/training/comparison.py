"""The trained model against what was made of it: outputs and speed."""

import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from kmlp.errors import RunError

# Classes this near to each other, relative to the largest output, are a tie.
TIE = 1e-4
LATENCY_BATCHES = (1, 8)
LATENCY_ROUNDS = 30
LATENCY_SECONDS = 5


def compare(forms, batches):
    """Runs all forms on images and holds them against the first.

    Args:
        forms: `{name: function}` of `(N, H, W, 3)` to `{name: (N, classes)}`.
        batches: of `(images, labels, weights)`; rows of weight 0 are padding.

    Returns:
        `{name: {"images", "accuracy", "largest_difference", "relative_difference",
        "disagreements", "ties"}}`. A disagreement is another class than the first
        form's where that one's two highest are no tie.
    """
    outputs, labels = {name: [] for name in forms}, []
    for images, classes, weights in batches:
        real = np.asarray(weights) > 0
        labels.append(np.asarray(classes)[real])
        for name, function in forms.items():
            (values,) = function(np.asarray(images)).values()
            outputs[name].append(np.asarray(values)[real])
    labels = np.concatenate(labels)
    outputs = {name: np.concatenate(values) for name, values in outputs.items()}
    expected = next(iter(outputs.values()))
    return {name: _compare(v, expected, labels) for name, v in outputs.items()}


def _compare(values, expected, labels):
    classes = values.argmax(axis=-1)
    magnitude = max(np.abs(expected).max(), 1e-30)
    # A difference of d in every output closes a margin of 2 d.
    second, first = np.sort(expected, axis=-1)[:, -2:].T
    differs = classes != expected.argmax(axis=-1)
    tie = first - second <= TIE * magnitude
    difference = float(np.abs(values - expected).max())
    if not np.isfinite(difference):
        differs, tie = np.ones_like(differs), np.zeros_like(tie)
    return {
        "images": len(labels),
        "accuracy": float(np.mean(classes == labels)),
        "largest_difference": difference,
        "relative_difference": difference / float(magnitude),
        "disagreements": int(np.sum(differs & ~tie)),
        "ties": int(np.sum(differs & tie)),
    }


def check_agreement(results):
    """Raises `InputError` where a form does not answer as the trained model does."""
    for name, result in results.items():
        if result["disagreements"]:
            raise RunError(
                f"{name} and the trained model see other classes in "
                f"{result['disagreements']:,} validation images, with outputs that "
                f"differ by up to {result['largest_difference']:.2g}; nothing was "
                "published. This is a fault of the export: please report it.",
            )


def latency(models):
    """Median milliseconds per batch, the models taking turns.

    Args:
        models: `{name: keras.Model}` of the same fixed input.

    Returns:
        `{name: {batch size: milliseconds}}`.
    """
    functions = {
        name: tf.function(lambda x, model=model: model(x, training=False))
        for name, model in models.items()
    }
    shape = next(iter(models.values())).inputs[0].shape[1:]
    result = {name: {} for name in models}
    for batch in LATENCY_BATCHES:
        images = keras.random.normal((batch, *shape), seed=0)
        times = {name: [] for name in models}
        end = None
        for round in range(LATENCY_ROUNDS + 1):
            for name, function in functions.items():
                start = time.perf_counter()
                function(images).numpy()
                times[name].append(time.perf_counter() - start)
            # The first round traces the functions.
            end = end or time.perf_counter() + LATENCY_SECONDS
            if round > 2 and time.perf_counter() > end:
                break
        for name, values in times.items():
            result[name][batch] = 1000 * statistics.median(values[1:])
    return result
