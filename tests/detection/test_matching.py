"""Assignment of anchors to objects, and the choice of samples."""

import keras
import numpy as np
import pytest
from keras import ops
from written_out import matched, random_boxes

from kmlp.detection.boxes import iou
from kmlp.detection.regions import match, sample

# Six anchors, two objects, and padding that overlaps the last anchor.
OVERLAPS = np.array(
    [
        [0.60, 0.10, 0.0],
        [0.45, 0.10, 0.0],
        [0.10, 0.20, 0.0],
        [0.35, 0.30, 0.0],
        [0.20, 0.30, 0.0],
        [0.00, 0.10, 0.9],
    ],
    "float32",
)
VALID = np.array([[True, True, False]])


def matches(overlaps, valid=VALID, *args, **kwargs):
    found = match(ops.convert_to_tensor(overlaps[None]), valid, *args, **kwargs)
    return [ops.convert_to_numpy(x)[0].tolist() for x in found]


def test_thresholds():
    index, label = matches(OVERLAPS, VALID, 0.5, 0.4)
    assert label == [1, -1, 0, 0, 0, 0]
    assert index == [0, 0, 1, 0, 1, 1]


def test_objects_keep_their_best_anchors():
    # The second object's best IoU, 0.3, is that of two anchors; the first of them
    # overlaps the first object more.
    index, label = matches(OVERLAPS, VALID, 0.5, 0.4, low_quality=True)
    assert label == [1, -1, 0, 1, 1, 0]
    assert index[3:5] == [1, 1]
    assert index[0] == 0
    _, label = matches(OVERLAPS, VALID, 0.5, 0.4, True, min_positive=0.35)
    assert label == [1, -1, 0, 0, 0, 0]
    _, label = matches(OVERLAPS, VALID, 0.7, 0.3, True, min_positive=0.3)
    assert label == [1, -1, 0, 1, 1, 0]


def test_equal_claims_bounds_and_objects_out_of_reach():
    overlaps = np.array([[0.3, 0.3, 0], [0.5, 0.1, 0], [0.4, 0.1, 0]], "float32")
    everything = np.ones((1, 3), bool)
    index, label = matches(overlaps, everything, 0.5, 0.4, low_quality=True)
    # The third object overlaps no anchor and takes none; 0.5 is positive, 0.4 not
    # negative.
    assert (index[0], label) == (1, [1, 1, -1])
    index, label = matches(
        np.array([[0.3, 0.3]], "float32"), everything[:, :2], 0.5, 0.4, True
    )
    assert (index, label) == ([1], [1])


def test_an_image_without_objects_is_all_negative():
    for overlaps in (OVERLAPS, 0 * OVERLAPS):
        nothing = np.zeros((1, 3), bool)
        index, label = matches(overlaps, nothing, 0.5, 0.4, low_quality=True)
        assert (index, label) == ([0] * 6, [0] * 6)


@pytest.mark.parametrize(
    "rule",
    [(0.5, 0.4, True, 0.0), (0.7, 0.3, True, 0.3), (0.5, 0.5, False, 0.0)],
    ids=["retinanet", "proposals", "regions"],
)
def test_as_written_out(rule):
    draws = np.random.default_rng(3)
    anchors = random_boxes(draws, (3, 80))
    objects = random_boxes(draws, (3, 7))
    # Objects of which some lie exactly on anchors.
    objects[:, 0] = anchors[:, 0]
    counts = (7, 4, 0)
    valid = np.arange(7)[None] < np.array(counts)[:, None]
    overlaps = iou(ops.convert_to_tensor(anchors), ops.convert_to_tensor(objects))
    index, label = (ops.convert_to_numpy(x) for x in match(overlaps, valid, *rule))
    assert index.dtype == label.dtype == "int32"
    overlaps = ops.convert_to_numpy(overlaps)
    for i, count in enumerate(counts):
        wanted_index, wanted = matched(overlaps[i, :, :count], *rule)
        assert (label[i] == wanted).all()
        assert (index[i] == wanted_index)[wanted == 1].all()
    assert (label[0] == 1).any()
    assert (label[0] == 0).any()


@pytest.mark.parametrize(
    ("positives", "negatives", "wanted"),
    [(30, 150, (10, 30)), (3, 150, (3, 37)), (3, 5, (3, 5)), (0, 150, (0, 40))],
)
def test_numbers_of_samples(positives, negatives, wanted):
    label = np.array([1] * positives + [0] * negatives + [-1] * 20, "int32")
    label = np.random.default_rng(0).permuted(np.stack([label] * 3), axis=1)
    seeds = keras.random.SeedGenerator(0)
    chosen = sample(ops.convert_to_tensor(label), 40, 0.25, seeds)
    chosen = [ops.convert_to_numpy(x) for x in chosen]
    for value, marks, count in zip((1, 0), chosen, wanted):
        assert marks.dtype == bool
        assert marks.shape == label.shape
        assert (label[marks] == value).all()
        assert (marks.sum(axis=1) == count).all()


def test_samples_are_drawn_evenly():
    label = ops.convert_to_tensor(np.array([[1] * 12 + [0] * 24] * 600, "int32"))
    seeds = keras.random.SeedGenerator(1)
    positive, negative = (
        ops.convert_to_numpy(x) for x in sample(label, 12, 0.25, seeds)
    )
    # Of 600 draws of a quarter: 150 each, with a deviation of 10.6; of 9 in 24: 225.
    assert np.abs(positive[:, :12].sum(axis=0) - 150).max() < 45
    assert np.abs(negative[:, 12:].sum(axis=0) - 225).max() < 50
