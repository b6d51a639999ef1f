"""The batches that detectors and segmenters train and are tested on.

Pictures are prepared by NumPy within a `tf.data.Dataset`, in its threads.
"""

import atexit
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kmlp.data.dense.source import DenseSource, DenseSplit
from kmlp.data.pictures import Unreadable
from kmlp.data.reading import REMEDY, SUBSTITUTES, in_order, threads
from kmlp.errors import RunError
from kmlp.training.input.dense_examples import (
    DetectionExamples,
    SegmentationExamples,
    Spec,
)
from kmlp.training.input.order import visits

# Seconds without a call after which none is expected.
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

    def close(self) -> None:
        """Refuse further calls and wait until no one asks."""
        self.closing = True
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            with self.lock:
                if not self.active and time.monotonic() - self.last > QUIET:
                    return
            time.sleep(QUIET / 10)


_CALLS = _Calls()
atexit.register(_CALLS.close)


def in_graph(function: Callable[..., Sequence[Any]], spec: Spec) -> Callable:
    """Return a function of integers to arrays as one of tensors to tensors.

    Args:
        function: Function of any number of integers, to a sequence of arrays.
        spec: Their shapes and types.
    """
    types = [dtype for _, dtype in spec]

    def arrays(*numbers: np.ndarray) -> list[np.ndarray]:
        with _CALLS:
            found = function(*map(int, numbers))
            return [np.asarray(part, dtype) for part, dtype in zip(found, types)]

    def tensors(*numbers: tf.Tensor) -> list[tf.Tensor]:
        parts = tf.numpy_function(arrays, numbers, types)
        return [tf.ensure_shape(part, shape) for part, (shape, _) in zip(parts, spec)]

    return tensors


def guarded(split: DenseSplit, prepare: Callable) -> Callable:
    """Return a function that prepares an example, or one of the next few instead.

    Args:
        split: Pictures; its `on_corrupt` says what befalls what cannot be read:
            `"stop"` ends the iteration with an error that `kmlp.data.reason` turns into
            words, `"skip"` takes one of the next few. A file that is gone ends it in
            either case.
        prepare: Function of an index, and of what else there is, to an example.

    Returns:
        A function of the same to `(example, whether it is that of the index)`.
    """
    noted = set()

    def read(index: int, *arguments: int) -> tuple[Any, bool]:
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
_TASKS: dict[str, Any] = {
    "detection": DetectionExamples,
    "segmentation": SegmentationExamples,
}
# Batches that are prepared ahead: some have hundreds of megabytes.
_AHEAD = 2


def training_batches(
    source: DenseSource, recipe: Any, *, batch_size: int, seed: int = 0, **share: int
) -> tf.data.Dataset:
    """Return shuffled, augmented batches without end.

    Args:
        source: Data set with pictures to train on.
        recipe: A `DenseRecipe`.
        batch_size: Images per replica and step.
        seed: Seed of order and augmentation.
        **share: Further arguments of `order.visits`: `global_batch`, and the step and
            the worker that batches are for.

    Returns:
        A `tf.data.Dataset` of `(images, targets)` of static shapes: float32
        `(batch_size, H, W, 3)` with the recipe's `image_size`, and the targets of
        `dense_examples`.

    Raises:
        InputError: In the cases of `order.visits`.
    """
    split = source.train
    shown = _TASKS[source.task](split, recipe)

    def prepared(index: int, position: int) -> Any:
        return shown.training(index, np.random.default_rng((seed, _PURPOSE, position)))

    sample = _sampler(guarded(split, prepared), shown.training_spec())

    def of_task(index: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, Any]:
        image, *targets = sample(index, position)[:-1]
        return image, shown.named(targets)

    steps = visits(split.count, batch_size=batch_size, seed=seed, **share)
    return _batched(steps.unbatch(), of_task, split, batch_size)


def evaluation_batches(
    source: DenseSource,
    recipe: Any,
    *,
    batch_size: int,
    worker: int = 0,
    workers: int = 1,
    replicas: int = 1,
    split: DenseSplit | None = None,
) -> tf.data.Dataset:
    """Return whole pictures in order, padded to full batches, as many for each worker.

    Args:
        source: Data set.
        recipe: A `DenseRecipe`.
        batch_size: Images per replica. Class maps of several sizes come one by one.
        worker, workers: Process that asks, and how many there are; worker w takes
            images w, w + W, ….
        replicas: Replicas of a worker; the number of its batches is a multiple of it.
        split: Pictures of `source`; `None`: those of validation.

    Returns:
        A `tf.data.Dataset` of `(images, targets, weights)`. Weights are 1, and 0 for
        padding and for what was skipped as unreadable.
    """
    split = split or source.validation
    shown = _TASKS[source.task](split, recipe)
    spec = shown.evaluation_spec()
    if None in spec[0][0]:
        batch_size = 1
    rounds = -(-split.count // (workers * batch_size * replicas))
    last = workers * rounds * batch_size * replicas
    sample = _sampler(guarded(split, shown.evaluation), spec)

    def of_task(index: tf.Tensor) -> tuple[tf.Tensor, Any, tf.Tensor]:
        image, *targets, itself = sample(tf.minimum(index, split.count - 1))
        weight = tf.cast(itself & (index < split.count), tf.float32)
        return image, shown.named(targets), weight

    dataset = tf.data.Dataset.range(worker, last, workers)
    return _batched(dataset, of_task, split, batch_size)


def _sampler(read, spec):
    """Return a function of tensors to an example and whether that was asked for."""

    def flat(*numbers: int) -> tuple[Any, ...]:
        example, itself = read(*numbers)
        return *example, itself

    return in_graph(flat, [*spec, ((), "bool")])


def _batched(dataset, sample, split, batch_size):
    dataset = dataset.map(sample, num_parallel_calls=threads(split.in_memory))
    dataset = dataset.batch(batch_size, drop_remainder=True)
    return in_order(dataset.prefetch(_AHEAD))
