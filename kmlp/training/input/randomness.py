"""Random numbers that follow from a seed and a position, many positions at once.

TensorFlow's stateless generators give a tensor for a seed; here every position of the
training data has numbers of its own, so that they do not depend on who asks.
"""

import tensorflow as tf

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
