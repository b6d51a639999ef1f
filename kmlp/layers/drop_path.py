"""Stochastic depth."""

import keras

from kmlp.errors import InputError


def drop_path(rate, *, name, dtype=None):
    """A layer that drops whole samples of a residual branch in training.

    Kept samples are scaled up by `1 / (1 - rate)`; Keras' Dropout does this when
    one draw serves all positions and channels.

    Reference: Huang et al., 2016, Deep Networks with Stochastic Depth.
    """
    return keras.layers.Dropout(
        rate, noise_shape=(None, 1, 1, 1), name=name, dtype=dtype
    )


def drop_path_rates(rate, blocks):
    """Rates rising linearly from 0 at the first to `rate` at the last block."""
    if not 0 <= rate < 1:
        raise InputError(
            f"`drop_path_rate` must lie in [0, 1). Received: drop_path_rate={rate}"
        )
    return [rate * i / max(blocks - 1, 1) for i in range(blocks)]
