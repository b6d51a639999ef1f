"""Random numbers that follow from a seed and a position, in NumPy.

The same bits as `kmlp.training.input.order` has in TensorFlow, so that both show
the same images in the same order.
"""

import numpy as np

# What the numbers are for: each has its own.
ORDER, SAMPLE = range(2)

# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIXERS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST = np.uint64(31)
_FLOAT_BITS = 23


def bits(seed, purpose, positions, count):
    """64 random bits, `count` times for every position.

    Args:
        seed: integer.
        purpose: `ORDER` or `SAMPLE`.
        positions: `(N,)` integers.
        count: integer.

    Returns:
        `(N, count)` uint64.
    """
    state = _mix(np.array([seed % 2**64], np.uint64)) + np.uint64(purpose)
    state = _mix(_mix(state) + np.asarray(positions).astype(np.uint64))
    return _mix(state[:, None] + _steps(count))


def uniform(values):
    """Numbers in [0, 1) of random bits, float32 of the same shape."""
    high = values >> np.uint64(64 - _FLOAT_BITS)
    return high.astype(np.float32) * np.float32(2.0**-_FLOAT_BITS)


def permutation(seed, epoch, count):
    """The order of `count` images in an epoch, `(count,)` int64."""
    start = bits(seed, ORDER, [epoch], 1)[0, 0]
    keys = _mix(start + _steps(count))
    return np.argsort(keys.view(np.int64), kind="stable")


def _mix(state):
    """The finaliser: every input bit changes about half of the output's."""
    state = state + _GAMMA
    for shift, factor in _MIXERS:
        state = (state ^ (state >> shift)) * factor
    return state ^ (state >> _LAST)


def _steps(count):
    return np.arange(count, dtype=np.uint64) * _GAMMA
