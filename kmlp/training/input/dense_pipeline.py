"""NumPy functions within a data set, and the end of the process."""

import atexit
import os
import threading
import time

import numpy as np
import tensorflow as tf

from kmlp.data.dense.source import Unreadable
from kmlp.data.reading import REMEDY, SUBSTITUTES
from kmlp.errors import RunError
from kmlp.training.input import detection_examples, segmentation_examples
from kmlp.training.input.order import visits

# How long nothing has been called when nothing will be, in seconds.
QUIET = 0.1
LONGEST = 10


class _Calls:
    """Those in progress: TensorFlow's threads wait for ever for a Python that ended."""

    def __init__(self):
        self.lock = threading.Lock()
        self.active, self.last, self.closing = 0, 0.0, False

    def __enter__(self):
        with self.lock:
            self.active += 1
        if self.closing:
            self.__exit__()
            raise RuntimeError("The process ends.")

    def __exit__(self, *error):
        with self.lock:
            self.active -= 1
            self.last = time.monotonic()

    def close(self):
        """Refuses further calls and waits until no one asks."""
        self.closing = True
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            with self.lock:
                if not self.active and time.monotonic() - self.last > QUIET:
                    return
            time.sleep(QUIET / 10)


_CALLS = _Calls()
atexit.register(_CALLS.close)


def in_graph(function, spec):
    """A function of Python integers to arrays as one of tensors to tensors.

    Args:
        function: of any number of integers, to a sequence of arrays.
        spec: `[(shape, type)]` of them; `None` in a shape: unknown.
    """
    types = [dtype for _, dtype in spec]

    def arrays(*numbers):
        with _CALLS:
            found = function(*map(int, numbers))
            return [np.asarray(part, dtype) for part, dtype in zip(found, types)]

    def tensors(*numbers):
        parts = tf.numpy_function(arrays, numbers, types)
        return [tf.ensure_shape(part, shape) for part, (shape, _) in zip(parts, spec)]

    return tensors


def guarded(split, prepare):
    """Prepares an example, or one of the next few in its place.

    Args:
        split: `DenseSplit`; its `on_corrupt` says what befalls what cannot be read:
            `"stop"` ends the iteration with an error that `kmlp.data.reason` turns into
            words, `"skip"` takes one of the next few. A file that is gone ends it in
            either case.
        prepare: function of an index, and of what else there is, to an example.

    Returns:
        A function of the same to `(example, whether it is that of the index)`.
    """
    noted = set()

    def read(index, *arguments):
        failures = []
        for number in range(1 + SUBSTITUTES):
            try:
                return prepare((index + number) % split.count, *arguments), not number
            except Unreadable as error:
                failures.append(error)
                if split.on_corrupt == "stop":
                    break
                if error.place not in noted:
                    noted.add(error.place)
                    print(f"Skipped {error}", flush=True)
            except OSError as error:
                raise RunError(
                    "An image can no longer be read; what was reached is kept: bring "
                    f"it back, then give the same command to go on. Received: {error}",
                ) from error
        raise RunError(
            "An image or its annotation cannot be used; what was reached is kept: "
            f"{REMEDY}, then give the same command to go on. Received: {failures[0]}",
        ) from failures[0]

    return read


# What an image's random numbers are for, besides those of
# `kmlp.training.input.order`.
_PURPOSE = 0xDE45E
_TASKS = {"detection": detection_examples, "segmentation": segmentation_examples}
# Batches that are prepared ahead: some have hundreds of megabytes.
_AHEAD = 2


def training_batches(
    source,
    recipe,
    *,
    batch_size,
    global_batch,
    start_step=0,
    worker=0,
    workers=1,
    seed=0,
):
    """Shuffled, augmented batches without end.

    Position p of the run is image `p % global_batch` of step `p // global_batch`.
    Worker w of W prepares positions w, w + W, w + 2W, …. An epoch has as many steps as
    there are full global batches, and an order of its own.

    Args:
        source: `DenseSource`.
        recipe: `DenseRecipe`.
        batch_size: of a replica; the replicas of a worker take successive batches.
        global_batch: images per step over all workers.
        start_step: first step.
        worker, workers: which of how many processes asks.
        seed: integer.

    Returns:
        A `tf.data.Dataset` of `(images, targets)` of static shapes: float32
        `(batch_size, H, W, 3)` with the recipe's `image_size`, and the targets of
        `detection_examples` or `segmentation_examples`.

    Raises:
        InputError: fewer images than a batch.
        InputError: a global batch that does not divide into the workers' batches.
    """
    split, task = source.train, _TASKS[source.task]

    def prepared(index, position):
        generator = np.random.default_rng((seed, _PURPOSE, position))
        return task.training_example(split, index, recipe, generator)

    sample = _sampler(guarded(split, prepared), task.training_spec(recipe))

    def of_task(index, position):
        image, *targets = sample(index, position)[:-1]
        return image, task.named(targets, recipe)

    steps = visits(
        split.count,
        batch_size=batch_size,
        global_batch=global_batch,
        start_step=start_step,
        worker=worker,
        workers=workers,
        seed=seed,
    )
    return _batched(steps.unbatch(), of_task, split, batch_size)


def evaluation_batches(
    source, recipe, *, batch_size, worker=0, workers=1, replicas=1, split=None
):
    """Whole pictures in order, padded to full batches, as many for every worker.

    Args:
        source: `DenseSource`.
        recipe: `DenseRecipe`.
        batch_size: of a replica. Class maps of several sizes come one by one.
        worker, workers: which of how many processes asks; worker w takes images w,
            w + W, ….
        replicas: of a worker; the number of its batches is a multiple of it.
        split: of `source`; `None`: its validation.

    Returns:
        A `tf.data.Dataset` of `(images, targets, weights)`. Weights are 1, and 0 for
        padding and for what was skipped as unreadable.
    """
    split = split or source.validation
    task = _TASKS[source.task]
    spec = task.evaluation_spec(split, recipe)
    if None in spec[0][0]:
        batch_size = 1
    rounds = -(-split.count // (workers * batch_size * replicas))
    last = workers * rounds * batch_size * replicas

    def prepared(index):
        return task.evaluation_example(split, index, recipe)

    sample = _sampler(guarded(split, prepared), spec)

    def of_task(index):
        image, *targets, itself = sample(tf.minimum(index, split.count - 1))
        weight = tf.cast(itself & (index < split.count), tf.float32)
        return image, task.named_evaluation(targets, recipe), weight

    dataset = tf.data.Dataset.range(worker, last, workers)
    return _batched(dataset, of_task, split, batch_size)


def _sampler(read, spec):
    """A function of tensors to an example's and whether it is the one asked for."""

    def flat(*numbers):
        example, itself = read(*numbers)
        return *example, itself

    return in_graph(flat, [*spec, ((), "bool")])


def _batched(dataset, sample, split, batch_size):
    calls = os.cpu_count() * (1 if split.in_memory else 2)  # some wait for the disk
    dataset = dataset.map(sample, num_parallel_calls=calls)
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(_AHEAD)
    options = tf.data.Options()
    options.deterministic = True
    # Workers divide the images here already.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    return dataset.with_options(options)
