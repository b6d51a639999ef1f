"""Overlap and encoding of boxes, worked by hand."""

import math

import numpy as np
import pytest
from keras import ops

from kmlp.detection.boxes import area, clip, decode, encode, iou

LOG2 = math.log(2)


def host(values):
    return ops.convert_to_numpy(values)


def tensor(values):
    return ops.convert_to_tensor(np.asarray(values, "float32"))


def test_areas():
    boxes = tensor([[0, 0, 2, 3], [-1, -1, 1, 1], [5, 5, 5, 9], [4, 4, 2, 8]])
    assert host(area(boxes)).tolist() == [6, 4, 0, 0]


def test_overlap_of_all_pairs():
    a = tensor([[0, 0, 2, 2], [0, 0, 0, 0]])
    b = tensor([[1, 1, 3, 3], [0, 0, 1, 1], [2, 0, 4, 2], [0, 0, 2, 2], [0, 0, 0, 0]])
    wanted = [[1 / 7, 1 / 4, 0, 1, 0], [0] * 5]
    assert host(iou(a, b)) == pytest.approx(np.array(wanted), abs=1e-7)
    # Leading axes broadcast: the same anchors for every image.
    pairs = host(iou(a[None], ops.stack([b, ops.flip(b, 0)])))
    assert pairs == pytest.approx(np.array([wanted, [w[::-1] for w in wanted]]))


# Anchor of 10×20 at (5, 10), box of 20×10 at (15, 15).
@pytest.mark.parametrize(
    ("std", "code"),
    [
        ((1, 1, 1, 1), (1, 0.25, LOG2, -LOG2)),
        ((0.1, 0.1, 0.2, 0.2), (10, 2.5, 5 * LOG2, -5 * LOG2)),
    ],
)
def test_code_of_a_box(std, code):
    anchor, box = tensor([[0, 0, 10, 20]]), tensor([[5, 10, 25, 20]])
    assert host(encode(anchor, box, std))[0] == pytest.approx(code, rel=1e-6)
    decoded = decode(anchor, tensor([code]), std)
    assert host(decoded)[0] == pytest.approx([5, 10, 25, 20], rel=1e-6)


def test_codes_of_random_boxes_round_trip():
    draws = np.random.default_rng(0)
    corners = draws.uniform(-50, 200, (2, 40, 2))
    boxes = np.concatenate([corners, corners + draws.uniform(8, 90, (2, 40, 2))], -1)
    anchors, boxes = tensor(boxes[0]), tensor(boxes[1])
    again = decode(anchors, encode(anchors, boxes))
    assert np.abs(host(again) - host(boxes)).max() < 1e-3


def test_sizes_are_held_and_boxes_clipped():
    anchor = tensor([[0, 0, 16, 32]])
    large = host(decode(anchor, tensor([[0, 0, 99, 99]])))[0]
    assert large == pytest.approx([8 - 500, 16 - 1000, 8 + 500, 16 + 1000], rel=1e-5)
    small = host(decode(anchor, tensor([[0, 0, -99, -99]])))[0]
    assert small == pytest.approx([7.872, 15.744, 8.128, 16.256], rel=1e-5)
    inside = host(decode(anchor, tensor([[0, 0, 99, 99]]), size=(20, 30)))[0]
    assert inside.tolist() == [0, 0, 30, 20]
    boxes = tensor([[-5, 3, 40, 9], [50, 50, 60, 60]])
    assert host(clip(boxes, (20, 30))).tolist() == [[0, 3, 30, 9], [30, 20, 30, 20]]


def test_padding_encodes_to_finite_numbers():
    nothing = tensor([[0, 0, 0, 0]])
    for pair in ((tensor([[0, 0, 9, 9]]), nothing), (nothing, nothing)):
        assert np.isfinite(host(encode(*pair))).all()
