"""How long TFLite files take for one image."""

import random
import statistics
import time

from kmlp.artifacts.running import repeatable
from kmlp.quiet import quiet

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
