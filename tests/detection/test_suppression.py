"""Suppression, by hand and against a loop over single boxes."""

import keras
import numpy as np
import pytest
from keras import ops
from written_out import random_boxes, suppressed

from kmlp.detection.regions import nms


def picked(*args):
    index, found = (ops.convert_to_numpy(x) for x in nms(*args))
    assert index.dtype == "int32"
    assert found.dtype == bool
    assert (index[~found] == 0).all()
    return [row[there].tolist() for row, there in zip(index, found)]


def test_by_hand():
    # The second overlaps the first by 0.6, the third the second by 0.6, the first by
    # one third: it stays, for what is gone suppresses nothing.
    boxes = np.array([[[0, 0, 8, 10], [2, 0, 10, 10], [4, 0, 12, 10], [0, 0, 8, 10]]])
    scores = np.array([[0.9, 0.8, 0.7, 0.6]])
    assert picked(boxes, scores, np.array([[0, 0, 0, 1]]), 0.5, 4) == [[0, 2, 3]]
    assert picked(boxes, scores, np.array([[0, 0, 0, 1]]), 0.5, 2) == [[0, 2]]
    assert picked(boxes, scores, np.zeros((1, 4)), 0.3, 4) == [[0]]
    # Exactly at the threshold nothing goes.
    assert picked(boxes, scores, np.zeros((1, 4)), 0.6, 4) == [[0, 1, 2]]


def test_of_equal_scores_the_first_and_never_what_is_absent():
    boxes = np.array([[[0, 0, 4, 4], [0, 0, 4, 4], [9, 9, 12, 12], [0, 0, 0, 0]]])
    absent = -np.inf
    scores = np.array([[0.5, 0.5, 0.5, 0.5]])
    assert picked(boxes, scores, np.zeros((1, 4)), 0.5, 4) == [[0, 2, 3]]
    scores = np.array([[absent, 0.5, absent, absent]])
    assert picked(boxes, scores, np.zeros((1, 4)), 0.5, 4) == [[1]]
    scores = np.full((1, 4), absent)
    assert picked(boxes, scores, np.zeros((1, 4)), 0.5, 4) == [[]]


@pytest.mark.parametrize(("groups", "threshold", "limit"), [(3, 0.5, 70), (1, 0.3, 10)])
def test_as_written_out(groups, threshold, limit):
    draws = np.random.default_rng(5)
    boxes = random_boxes(draws, (4, 150))
    # Coarse scores tie often; the last image holds nothing.
    scores = np.round(draws.uniform(size=(4, 150)), 1).astype("float32")
    scores[scores < 0.2] = -np.inf
    scores[3] = -np.inf
    classes = draws.integers(0, groups, (4, 150))
    wanted = [
        suppressed(*image, threshold, limit) for image in zip(boxes, scores, classes)
    ]
    assert picked(boxes, scores, classes, threshold, limit) == wanted
    assert len(wanted[0]) > 0
    assert wanted[3] == []


def test_gradients_pass_around_it():
    boxes = ops.convert_to_tensor(random_boxes(np.random.default_rng(0), (1, 6)))
    scores = ops.convert_to_tensor(np.linspace(0.9, 0.4, 6, dtype="float32")[None])

    def best(boxes):
        index, _ = nms(boxes, scores, np.zeros((1, 6)), 0.5, 1)
        return ops.sum(ops.take_along_axis(boxes, index[..., None], axis=1))

    if keras.backend.backend() == "jax":
        import jax

        slopes = jax.jit(jax.grad(best))(boxes)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(boxes)
            value = best(boxes)
        slopes = tf.convert_to_tensor(tape.gradient(value, boxes))
    else:
        boxes.requires_grad_()
        best(boxes).backward()
        slopes = boxes.grad
    assert ops.convert_to_numpy(slopes)[0].tolist() == [[1] * 4] + [[0] * 4] * 5
