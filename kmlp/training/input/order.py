"""Random numbers that follow from a seed and a position, many positions at once.

TensorFlow's stateless generators give a tensor for a seed; here every position of the
training data has numbers of its own, so that they do not depend on who asks.
"""

import numpy as np
import tensorflow as tf

from kmlp.data.images import steps_per_epoch
from kmlp.errors import InputError

# What the numbers are for: each has its own.
ORDER, SAMPLE, BATCH = range(3)

# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
_GAMMA = 0x9E3779B97F4A7C15
_MIXERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_FLOAT_BITS = 23


def bits(seed, purpose, positions, count):
    """64 random bits, `count` times for every position.

    Args:
        seed: integer.
        purpose: `ORDER`, `SAMPLE` or `BATCH`.
        positions: `(N,)` int64.
        count: integer.

    Returns:
        `(N, count)` uint64.
    """
    state = _mix(tf.constant([seed % 2**64], tf.uint64)) + _unsigned(purpose)
    state = _mix(_mix(state) + tf.cast(positions, tf.uint64))
    return _mix(state[:, None] + _steps(count))


def uniform(values):
    """Numbers in [0, 1) of random bits, float32 of the same shape."""
    # One bit less than a float32 holds: u * n stays below n when it is rounded.
    high = tf.bitwise.right_shift(values, _unsigned(64 - _FLOAT_BITS))
    return tf.cast(high, tf.float32) * 2.0**-_FLOAT_BITS


def seeds(values):
    """Seeds of TensorFlow's stateless ops, int32, of random bits: (…) -> (…, 2)."""
    return tf.bitcast(values, tf.int32)


def permutation(seed, epoch, count):
    """The order of `count` images in an epoch, `(count,)` int64.

    `tf.random.experimental.index_shuffle` needs no memory, but its orders of
    successive epochs are correlated.
    """
    epoch = bits(seed, ORDER, tf.reshape(epoch, (1,)), 1)[0, 0]
    keys = _mix(epoch + _steps(count))
    # argsort compares signed integers.
    return tf.cast(tf.argsort(tf.bitcast(keys, tf.int64), stable=True), tf.int64)


def _mix(state):
    """The finaliser: every input bit changes about half of the output's."""
    state += _unsigned(_GAMMA)
    for shift, factor in _MIXERS:
        state = tf.bitwise.bitwise_xor(state, _shifted(state, shift))
        state *= _unsigned(factor)
    return tf.bitwise.bitwise_xor(state, _shifted(state, 31))


def _steps(count):
    return tf.cast(tf.range(count, dtype=tf.int64), tf.uint64) * _unsigned(_GAMMA)


def _shifted(state, shift):
    return tf.bitwise.right_shift(state, _unsigned(shift))


def _unsigned(value):
    return tf.constant(value, tf.uint64)


def visits(
    count, *, batch_size, global_batch, start_step, worker, workers, seed, repeats=1
):
    """The images of a run without end, step by step.

    Position p of the run is image `p % global_batch` of step `p // global_batch`.
    Worker w of W prepares positions w, w + W, w + 2W, …. An epoch has as many steps as
    there are full global batches, and an order of its own.

    Args:
        count: images there are.
        batch_size: of a replica.
        global_batch: images per step over all workers.
        start_step: first step.
        worker, workers: which of how many processes asks.
        seed: integer.
        repeats: how often an image follows itself; an epoch then shows the first part
            of its order.

    Returns:
        A `tf.data.Dataset` of `(indices, positions)`, int64 `(global_batch /
        workers,)` each.

    Raises:
        InputError: fewer images than a batch.
        InputError: a global batch that does not divide into the workers' batches.
    """
    steps = steps_per_epoch(count, global_batch)
    share, rest = divmod(global_batch, workers)
    if rest or share % batch_size:
        raise InputError(
            "global_batch must be a multiple of workers * batch_size. Received: "
            f"global_batch={global_batch}, workers={workers}, batch_size={batch_size}"
        )
    start_epoch, start_step = divmod(start_step, steps)

    def epoch(number):
        order = permutation(seed, number, count)
        first = tf.where(number == start_epoch, np.int64(start_step), np.int64(0))

        def step(index):
            places = index * global_batch + worker
            places += workers * tf.range(share, dtype=tf.int64)
            positions = number * (steps * global_batch) + places
            return tf.gather(order, places // repeats), positions

        return tf.data.Dataset.range(first, steps).map(step)

    return tf.data.Dataset.range(start_epoch, np.iinfo(np.int64).max).flat_map(epoch)
