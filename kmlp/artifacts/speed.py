"""How long TFLite files take for one image."""

import random
import statistics
import time

import keras

from kmlp.artifacts.running import repeatable
from kmlp.console import quiet

LATENCY_BATCHES = (1, 8)
LATENCY_ROUNDS = 30
LATENCY_SECONDS = 5

THREADS = (1, 2)
ROUNDS, LEAST_ROUNDS = 50, 5
SECONDS = 1.0  # for a file and a number of threads


def latencies(files):
    """Median milliseconds for a file's batch, all files taking turns.

    Args:
        files: `{name: path}` of TFLite files.

    Returns:
        `{name: {threads: milliseconds}}`.
    """
    with quiet():  # delegates announce themselves
        calls = {
            (name, threads): repeatable(path, threads)
            for name, path in files.items()
            for threads in THREADS
        }
        times = {key: [] for key in calls}
        end = time.perf_counter() + SECONDS * len(calls)
        for turn in range(ROUNDS):
            for key in random.sample(list(calls), len(calls)):
                start = time.perf_counter()
                calls[key]()
                times[key].append(time.perf_counter() - start)
            if turn + 1 >= LEAST_ROUNDS and time.perf_counter() > end:
                break
    return {
        name: {n: 1000 * statistics.median(times[name, n]) for n in THREADS}
        for name in files
    }


def model_latencies(models):
    """Median milliseconds per batch, the models taking turns.

    Args:
        models: `{name: keras.Model}` of the same fixed input.

    Returns:
        `{name: {batch size: milliseconds}}`.
    """
    import tensorflow as tf

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
