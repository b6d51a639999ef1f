"""The order in which a run shows its images, and the random numbers for each.

Both follow from a seed and a position, many positions at once, so they do not depend
on who asks. NumPy's arrays give arrays and TensorFlow's tensors give tensors of the
same bits: images in memory are shown alike with and without TensorFlow.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from kmlp.data.images import steps_per_epoch
from kmlp.errors import InputError
from kmlp.typing import Tensor

if TYPE_CHECKING:
    import tensorflow as tf

# Crops that are windows of the whole image, which can be kept decoded.
WHOLE_CROPS = ("pad", "shift", "none")
# The most that a shifted window uncovers, as a share of the side.
SHIFT = 1 / 8

# Purposes of the random numbers: each has its own.
ORDER, SAMPLE, BATCH = range(3)

# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIXERS = ((30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB)))
# One bit less than a float32 holds: u * n stays below n when it is rounded.
_FLOAT_BITS = 23


def bits(seed: int, purpose: int, positions: Tensor, count: int) -> Tensor:
    """Return 64 random bits, `count` times for every position.

    Args:
        seed: Seed of the run.
        purpose: Purpose: `ORDER`, `SAMPLE` or `BATCH`.
        positions: Positions `(N,)`, integers.
        count: Numbers for a position.

    Returns:
        Bits `(N, count)`, uint64.
    """
    state = scrambled(np.array([seed % 2**64], np.uint64)) + np.uint64(purpose)
    state = scrambled(_cast(positions, np.uint64) + scrambled(state))
    return scrambled(state[:, None] + np.arange(count, dtype=np.uint64) * _GAMMA)


def uniform(values: Tensor) -> Tensor:
    """Return numbers in [0, 1) of random bits, float32 of the same shape."""
    high = _cast(_shifted(values, 64 - _FLOAT_BITS), np.float32)
    return high * np.float32(2.0**-_FLOAT_BITS)


def seeds(values: "tf.Tensor") -> "tf.Tensor":
    """Return int32 seeds of TensorFlow's stateless ops, of bits: (…) -> (…, 2)."""
    import tensorflow as tf

    return tf.bitcast(values, tf.int32)


def permutation(seed: int, epoch: Tensor, count: int) -> Tensor:
    """Return the order of `count` images in an epoch, `(count,)` int64.

    `tf.random.experimental.index_shuffle` needs no memory, but its orders of
    successive epochs are correlated.
    """
    # Keys are compared as signed integers, which is how TensorFlow sorts.
    if isinstance(epoch, int):
        start = bits(seed, ORDER, [epoch], 1)[0]
        keys = scrambled(start + np.arange(count, dtype=np.uint64) * _GAMMA)
        return np.argsort(keys.view(np.int64), kind="stable")
    import tensorflow as tf

    start = bits(seed, ORDER, tf.reshape(epoch, (1,)), 1)[0]
    places = tf.cast(tf.range(count, dtype=tf.int64), tf.uint64)
    keys = tf.bitcast(scrambled(start + places * _GAMMA), tf.int64)
    return tf.cast(tf.argsort(keys, stable=True), tf.int64)


def scrambled(state: Tensor) -> Tensor:
    """Return SplitMix64's finaliser: an input bit changes about half of the output's.

    Args:
        state: State of any shape, uint64.
    """
    state = state + _GAMMA
    for shift, factor in _MIXERS:
        state = (state ^ _shifted(state, shift)) * factor
    return state ^ _shifted(state, 31)


def _shifted(state, shift):
    if isinstance(state, (np.ndarray, np.generic)):
        return state >> np.uint64(shift)
    import tensorflow as tf

    return tf.bitwise.right_shift(state, tf.constant(shift, tf.uint64))


def _cast(values, dtype):
    if isinstance(values, (np.ndarray, list)):
        return np.asarray(values).astype(dtype)
    import tensorflow as tf

    return tf.cast(values, dtype)


def visits(
    count: int,
    *,
    batch_size: int,
    global_batch: int,
    start_step: int = 0,
    worker: int = 0,
    workers: int = 1,
    seed: int = 0,
    repeats: int = 1,
) -> "tf.data.Dataset":
    """Return the images of a run without end, step by step.

    Position p of the run is image `p % global_batch` of step `p // global_batch`.
    Worker w of W prepares positions w, w + W, w + 2W, …. An epoch has as many steps as
    there are full global batches, and an order of its own.

    Args:
        count: Number of images.
        batch_size: Images per replica and step; the replicas of a worker take
            successive batches.
        global_batch: Images per step over all workers.
        start_step: First step.
        worker, workers: Process that asks, and how many there are.
        seed: Seed of the order.
        repeats: How often an image follows itself; an epoch then shows the first part
            of its order.

    Returns:
        A `tf.data.Dataset` of `(indices, positions)`, int64 `(global_batch /
        workers,)` each.

    Raises:
        InputError: If there are fewer images than a batch has, or a global batch does
            not divide into the workers' batches.
    """
    import tensorflow as tf

    steps = steps_per_epoch(count, global_batch)
    share, rest = divmod(global_batch, workers)
    if rest or share % batch_size:
        raise InputError(
            "global_batch must be a multiple of workers * batch_size. Received: "
            f"global_batch={global_batch}, workers={workers}, batch_size={batch_size}"
        )
    start_epoch, start_step = divmod(start_step, steps)

    def epoch(number: "tf.Tensor") -> Any:
        order = permutation(seed, number, count)
        first = tf.where(number == start_epoch, np.int64(start_step), np.int64(0))

        def step(index: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
            places = index * global_batch + worker
            places += workers * tf.range(share, dtype=tf.int64)
            positions = number * (steps * global_batch) + places
            return tf.gather(order, places // repeats), positions

        return tf.data.Dataset.range(first, steps).map(step)

    return tf.data.Dataset.range(start_epoch, np.iinfo(np.int64).max).flat_map(epoch)
