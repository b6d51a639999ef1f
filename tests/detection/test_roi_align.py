"""RoIAlign beside the published definition, written out point by point."""

import keras
import numpy as np
import pytest

from kmlp.detection.roi_align import RoIAlign, box_levels, roi_align

STRIDES = (4, 8, 16)
SHAPES = ((24, 32), (12, 16), (6, 8))  # of images of 96×128
# On the image, over each border, far outside, of a fraction of a pixel, empty, larger
# than the image, long and thin.
BOXES = (
    (10.0, 12.0, 40.0, 61.0),
    (0.0, 0.0, 128.0, 96.0),
    (-30.5, -20.25, 25.0, 30.0),
    (100.0, 70.0, 170.0, 130.0),
    (300.0, 300.0, 340.0, 350.0),
    (50.3, 40.7, 50.6, 41.1),
    (64.0, 48.0, 64.0, 48.0),
    (-500.0, -400.0, 900.0, 800.0),
    (3.0, 90.0, 126.0, 95.5),
    (-3.9, -3.9, 4.1, 4.1),
    (-20.0, -13.0, 130.0, 110.0),
)


def random_maps(batch=2, channels=3, seed=0):
    random = np.random.default_rng(seed)
    return [
        random.normal(size=(batch, *shape, channels)).astype("float32")
        for shape in SHAPES
    ]


def bilinear(x, row, column):
    """A map's value at a place, by the reference frameworks' border rules."""
    height, width, _ = x.shape
    if row < -1 or row > height or column < -1 or column > width:
        return np.zeros(x.shape[-1])
    row, column = max(row, 0.0), max(column, 0.0)
    top, left = int(row), int(column)
    if top >= height - 1:
        top = bottom = height - 1
        row = float(top)
    else:
        bottom = top + 1
    if left >= width - 1:
        left = right = width - 1
        column = float(left)
    else:
        right = left + 1
    down, across = row - top, column - left
    return (
        x[top, left] * (1 - down) * (1 - across)
        + x[top, right] * (1 - down) * across
        + x[bottom, left] * down * (1 - across)
        + x[bottom, right] * down * across
    )


def expected(maps, boxes, strides, size):
    maps = [x.astype("float64") for x in maps]
    batch, count = boxes.shape[:2]
    result = np.zeros((batch, count, size, size, maps[0].shape[-1]))
    for n, r in np.ndindex(batch, count):
        x1, y1, x2, y2 = map(float, boxes[n, r])
        area = (x2 - x1) * (y2 - y1)
        level = int(np.floor(np.log2(np.sqrt(area) / 56 + 1e-6)))
        level = min(max(level, 0), len(maps) - 1)
        stride = strides[level]
        x1, y1, x2, y2 = (v / stride - 0.5 for v in (x1, y1, x2, y2))
        height, width = (y2 - y1) / size, (x2 - x1) / size
        for i, j in np.ndindex(size, size):
            result[n, r, i, j] = np.mean(
                [
                    bilinear(
                        maps[level][n],
                        y1 + (i + (0.5 + a) / 2) * height,
                        x1 + (j + (0.5 + b) / 2) * width,
                    )
                    for a in (0, 1)
                    for b in (0, 1)
                ],
                axis=0,
            )
    return result


numpy = keras.ops.convert_to_numpy


@pytest.mark.parametrize("size", [7, 14])
def test_features_of_boxes_equal_the_definition(size):
    maps = random_maps()
    boxes = np.array([BOXES, BOXES[::-1]], "float32")
    found = numpy(roi_align(maps, boxes, STRIDES, size))
    np.testing.assert_allclose(
        found, expected(maps, boxes, STRIDES, size), rtol=1e-5, atol=1e-5
    )
    # The far box sees nothing, the box at a corner something.
    assert not found[0, 4].any()
    assert found[0, 9].any()


def test_the_level_doubles_with_the_side():
    sides = np.array([1, 55, 56, 111.9, 112, 223, 224, 447, 448, 9999], "float32")
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=-1)
    levels = numpy(box_levels(boxes, 4))
    np.testing.assert_array_equal(levels, [0, 0, 0, 0, 1, 1, 2, 2, 3, 3])
    assert levels.dtype == "int32"
    # A wide box counts by its area: 28 × 448 is a square of 112.
    assert numpy(box_levels(np.array([[0, 0, 28, 448]], "float32"), 4)) == [1]
    # What is no number has a level, so that reading never fails.
    assert 0 <= numpy(box_levels(np.full((1, 4), np.nan, "float32"), 4))[0] <= 3


def test_a_plane_is_read_exactly():
    """Bilinear reading of a linear map gives its value at each bin's centre."""
    rows, columns = np.meshgrid(np.arange(24.0), np.arange(32.0), indexing="ij")
    plane = (2 * rows - 3 * columns + 1)[None, ..., None].astype("float32")
    box = np.array([[[20.0, 12.0, 48.0, 40.0]]], "float32")
    found = numpy(roi_align([plane], box, (4,), 7))[0, 0, ..., 0]
    # Bins of 4 pixels, one position: centres at 12/4 − ½ + ½ + i, 20/4 + j.
    i, j = np.meshgrid(np.arange(7), np.arange(7), indexing="ij")
    np.testing.assert_allclose(found, 2 * (3 + i) - 3 * (5 + j) + 1, atol=1e-4)


def test_gradients_reach_the_maps_and_not_the_boxes():
    """The operation is linear in the maps: its gradient is the weights it reads."""
    maps = random_maps(batch=2, channels=1)
    boxes = np.array([BOXES, BOXES[::-1]], "float32")
    random = np.random.default_rng(1)
    weights = random.normal(size=(2, 11, 3, 3, 1)).astype("float32")
    factors = keras.ops.convert_to_tensor(weights)

    def loss(maps, boxes):
        return keras.ops.sum(roi_align(maps, boxes, STRIDES, 3) * factors)

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        inputs = [tf.constant(x) for x in maps], tf.constant(boxes)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = loss(*inputs)
        gradients, of_boxes = tape.gradient(value, inputs)
        assert of_boxes is None
    elif backend == "jax":
        import jax

        gradients, of_boxes = jax.grad(loss, argnums=(0, 1))(maps, boxes)
        assert not np.any(of_boxes)
    else:
        import torch

        inputs = [torch.tensor(x, requires_grad=True) for x in maps]
        places = torch.tensor(boxes, requires_grad=True)
        loss(inputs, places).backward()
        gradients = [x.grad for x in inputs]
        assert places.grad is None
    for level, gradient in enumerate(gradients):
        gradient = numpy(gradient)
        assert gradient.any()
        for _ in range(12):
            place = tuple(random.integers(0, s) for s in gradient.shape)
            one = [np.zeros_like(x) for x in maps]
            one[level][place] = 1.0
            slope = (expected(one, boxes, STRIDES, 3) * weights).sum()
            assert abs(gradient[place] - slope) < 1e-5, (level, place)


def test_the_layer_knows_unknown_sizes_and_keeps_boxes_exact():
    inputs = [keras.Input((None, None, 3)) for _ in SHAPES] + [keras.Input((11, 4))]
    layer = RoIAlign(7, strides=STRIDES, dtype="mixed_bfloat16")
    twin = RoIAlign.from_config(layer.get_config())
    outputs = twin(inputs)
    assert outputs.shape == (None, 11, 7, 7, 3)
    model = keras.Model(inputs, outputs)
    maps = random_maps()
    boxes = np.array([BOXES, BOXES], "float32")
    found = numpy(model([*maps, boxes]))
    # Types of inputs are kept: nothing here rounds a box to eight bits.
    np.testing.assert_allclose(
        found, expected(maps, boxes, STRIDES, 7), rtol=1e-5, atol=1e-5
    )
