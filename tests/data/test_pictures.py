"""Overlays: colours where they belong, sizes that can be read, nothing outside."""

import itertools

import numpy as np
import pytest

from kmlp.data.dense.source import palette
from kmlp.predicting import drawing as pictures
from kmlp.predicting.dense_predictions import Detected

NAMES = ("circle", "square", "triangle")


def grey(height=96, width=96):
    return np.full((height, width, 3), 128, "uint8")


def disc(size, box):
    x1, y1, x2, y2 = box
    rows, columns = np.indices(size) + 0.5
    across = ((columns - (x1 + x2) / 2) / (x2 - x1)) ** 2
    return across + ((rows - (y1 + y2) / 2) / (y2 - y1)) ** 2 < 1 / 4


@pytest.mark.parametrize(
    ("size", "expected"),
    [((96, 96), (384, 384)), ((800, 1333), (1333, 800)), ((10, 40), (1560, 390))],
)
def test_small_pictures_are_enlarged(size, expected):
    detections = {"boxes": np.zeros((0, 4)), "classes": np.zeros(0, int)}
    picture = pictures.draw_detections(grey(*size), detections, NAMES)
    assert picture.size == expected
    assert (np.asarray(picture) == 128).all()


def test_boxes_and_masks_lie_where_they_belong():
    box = (30, 40, 70, 80)
    detections = {
        "boxes": np.array([box, (0, 0, 0, 0)], float),
        "classes": np.array([1, -1]),
        "scores": np.array([0.9, 0.0]),
        "masks": np.stack([disc((96, 96), box), np.ones((96, 96), bool)]),
    }
    colour = palette(3)[1].astype(float)
    found = np.asarray(pictures.draw_detections(grey(), detections, NAMES), float)
    inside = found[240, 200]
    np.testing.assert_allclose(inside, 0.55 * 128 + 0.45 * colour, atol=1)
    edge = found[4 * 60, 4 * 30 : 4 * 30 + 6]
    assert (abs(edge - colour).max(-1) == 0).any()
    assert (found[325:] == 128).all()
    assert (found[:, 290:] == 128).all()
    assert (found[165, 125] == 128).all()  # in the box, beyond the disc
    assert (found[145:158, 125:180] != 128).any()  # its name stands above it


def test_low_scores_are_left_out():
    detections = {
        "boxes": np.array([[10, 20, 40, 60]]),
        "classes": np.array([0]),
        "scores": np.array([0.4]),
    }
    drawn, none = (
        np.asarray(Detected("grey", grey(), detections).overlay(NAMES, score))
        for score in (0.3, 0.5)
    )
    assert (drawn != 128).any()
    assert (none == 128).all()


@pytest.mark.parametrize(
    "box", [(-5, -5, 400, 300), (95.6, 95.6, 96, 96), (20, 20, 20, 20), (0, 0, 1, 96)]
)
def test_odd_boxes_are_drawn(box):
    detections = {"boxes": np.array([box]), "classes": np.array([2])}
    assert pictures.draw_detections(grey(), detections, NAMES).size == (384, 384)


def test_class_maps_and_their_legend():
    classes = np.zeros((96, 96), "uint8")
    classes[:, 60:] = 2
    classes[:30] = 255
    names = ("background", *NAMES)
    colours = palette(4, background=True).astype(float)
    picture = pictures.draw_classes(grey(), classes, names)
    found = np.asarray(picture, float)
    for column, label in ((100, 0), (300, 2)):
        expected = 0.4 * 128 + 0.6 * colours[label]
        np.testing.assert_allclose(found[250, column], expected, atol=1)
    assert (found[50, 100] == 128).all()  # void stays
    assert (found[250, 239] == 255).all()  # a white line between two classes
    below = found[384:].reshape(-1, 3)
    for label, shown in ((0, True), (1, False), (2, True), (3, False)):
        assert (below == colours[label]).all(1).any() == shown
    bare = pictures.draw_classes(grey(), classes, names, legend=False)
    assert bare.size == (384, 384)


def test_maps_of_void_alone():
    void = np.full((96, 96), 255)
    found = np.asarray(pictures.draw_classes(grey(), void, NAMES, legend=False))
    assert (found == 128).all()
    pictures.draw_classes(grey(), void, NAMES)


def test_a_contact_sheet():
    one = pictures.draw_classes(grey(), np.zeros((96, 96), int), NAMES)
    rows = [[grey(), one, grey(48, 96)]] * 2
    sheet = pictures.contact_sheet(rows, ("image", "truth", "prediction"), width=100)
    assert sheet.size[0] == 3 * 112 + 12
    pixels = np.asarray(sheet)
    assert (pixels[60, 50] == 128).all()
    assert (pixels[:40, :112] != 255).any()  # the title


def test_colours_of_classes_differ():
    for count in (3, 19, 80, 150):
        colours = palette(count).astype(int)
        assert colours.shape == (count, 3)
        assert len({tuple(colour) for colour in colours.tolist()}) == count
    first = itertools.combinations(palette(20).astype(int), 2)
    assert min(abs(one - other).sum() for one, other in first) > 25
