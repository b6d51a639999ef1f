"""Leaving the scope of a distribution strategy."""

import concurrent.futures
import functools

import tensorflow as tf


def outside_strategy(function):
    """Runs a function outside the caller's `tf.distribute` scope, if there is one.

    Variables made within a scope are mirrored, and a graph over mirrored variables
    runs nowhere else. A scope belongs to its thread, so another thread is outside.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        if not tf.distribute.has_strategy():
            return function(*args, **kwargs)
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            return executor.submit(function, *args, **kwargs).result()

    return call
