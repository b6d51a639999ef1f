"""Drawn scenes: the same from their numbers alone, and consistent in themselves."""

import concurrent.futures
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from kmlp.data.dense import open_dense
from kmlp.data.dense.scenes import LEAST_VISIBLE, RADII, draw
from kmlp.errors import KmlpError

COUNT = 60


@pytest.fixture(scope="module")
def detection():
    return open_dense(None, "detection", train=COUNT, validation=COUNT)


@pytest.fixture(scope="module")
def segmentation():
    return open_dense("scenes", "segmentation", train=COUNT, validation=COUNT)


def test_boxes_masks_and_map_agree(detection, segmentation):
    for index in range(COUNT):
        objects = detection.train.annotation(index)
        classes = segmentation.train.annotation(index)
        masks = objects.masks()
        assert 1 <= len(objects) <= 4
        assert masks.sum(0).max() == 1  # of what is seen, each pixel has one owner
        expected = np.zeros((96, 96), "uint8")
        for mask, label in zip(masks, objects.classes):
            expected[mask] = label + 1
        np.testing.assert_array_equal(classes, expected)
        for mask, (x1, y1, x2, y2) in zip(masks, objects.boxes.astype(int)):
            rows, columns = np.nonzero(mask)
            assert (x1, y1) == (columns.min(), rows.min())
            assert (x2, y2) == (columns.max() + 1, rows.max() + 1)
            assert mask.sum() >= LEAST_VISIBLE * np.pi * (96 * RADII[0]) ** 2
        np.testing.assert_array_equal(
            detection.train.image(index), segmentation.train.image(index)
        )


def test_shapes_are_what_they_are_called():
    """The share of its box that a shape fills tells them apart."""
    filled = {name: [] for name in range(3)}
    for index in range(400):
        _, owners, classes = draw(np.random.default_rng((7, index)))
        rows, columns = np.nonzero(owners)
        inside = min(*rows, *columns) > 0 and max(*rows, *columns) < 95
        if len(classes) == 1 and inside:
            sides = np.ptp(rows) + 1, np.ptp(columns) + 1
            filled[int(classes[0])].append(len(rows) / np.prod(sides))
    circles, squares, triangles = (np.array(filled[k]) for k in range(3))
    assert min(map(len, filled.values())) > 10
    assert abs(circles - np.pi / 4).max() < 0.05
    # Turned by t, a square fills 1 / (1 + sin 2t) of its box.
    assert squares.min() > 0.45
    assert squares.max() > 0.8
    # A triangle fills at most half of any box around it.
    assert triangles.max() < 0.55


def test_scenes_follow_from_seed_split_and_index(detection):
    again = open_dense(None, "detection", train=5, validation=COUNT)
    other = open_dense(None, "detection", train=5, validation=COUNT, seed=1)
    # Asked in another order, by several threads.
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        images = list(pool.map(again.train.image, [4, 3, 2, 1, 0]))[::-1]
    for index, image in enumerate(images):
        np.testing.assert_array_equal(image, detection.train.image(index))
        assert (image != other.train.image(index)).mean() > 0.9
        assert (image != detection.validation.image(index)).mean() > 0.9
    assert images[0].dtype == np.uint8


def test_classes_and_numbers_of_objects_are_balanced():
    scenes = [draw(np.random.default_rng((3, index)))[2] for index in range(300)]
    numbers = np.bincount([len(classes) for classes in scenes], minlength=5)[1:]
    shapes = np.bincount(np.concatenate(scenes), minlength=3)
    assert numbers.min() > 40
    assert shapes.min() > 0.27 * shapes.sum()


def test_a_scene_is_drawn_fast():
    best = min(_seconds(20) for _ in range(5)) / 20
    assert best < 4e-3  # 1 ms on an idle core


def _seconds(count):
    start = time.perf_counter()
    for index in range(count):
        draw(np.random.default_rng(index))
    return time.perf_counter() - start


def test_no_scenes_are_refused():
    with pytest.raises(KmlpError, match="Received: 0 and 256"):
        open_dense(None, "detection", train=0)


@pytest.mark.parametrize("spec", ["ade20k:x", "coco", "coco:", "imagenet:x", "x"])
def test_other_data_are_refused(spec):
    with pytest.raises(
        KmlpError, match=r"--data takes scenes or coco:DIR for detection"
    ):
        open_dense(spec, "detection")


SCRIPT = """
import sys
sys.modules["tensorflow"] = None  # importing it raises ImportError
import kmlp.predicting.drawing
from kmlp.data.dense import open_dense, geometry, results
from kmlp.data import scoring
source = open_dense(None, "detection", train=1, validation=1)
picture = kmlp.predicting.drawing.draw_detections(
    source.train.image(0), vars(source.train.annotation(0)), source.class_names
)
print(picture.size)
"""


def test_tensorflow_is_not_needed():
    pytest.importorskip("jax")
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "(384, 384)\n", result.stderr[-2000:]
