"""RoIAlign: the features of boxes, read between the positions of a pyramid."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kmlp.layers.layer import Layer
from kmlp.typing import Shape, Tensor

# Samples per bin and axis. The reference frameworks let each box choose, which has no
# static shape; the published experiments found hardly a difference from four on.
SAMPLES = 2


def box_levels(boxes: Tensor, count: int, finest_scale: float = 56) -> Tensor:
    """Return the level of each box, 0 from a side of `finest_scale` pixels on.

    Args:
        boxes: Boxes `(…, 4)`.
        count: Number of levels; larger and smaller boxes take the last and first.
        finest_scale: Side of the square below whose double a box is of level 0.

    Returns:
        Levels `(…)`, int32.

    Reference: Feature Pyramid Networks, Eq. 1.
    """
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    scale = ops.sqrt(sides[..., 0] * sides[..., 1]) / finest_scale
    level = ops.cast(ops.floor(ops.log2(scale + 1e-6)), "int32")
    # Whole numbers are clipped: boxes that are no numbers have a level too.
    return ops.clip(level, 0, count - 1)


def roi_align(
    maps: Sequence[Tensor],
    boxes: Tensor,
    strides: Sequence[int],
    size: int,
    finest_scale: float = 56,
) -> Tensor:
    """Return features of boxes: the mean of 2×2 bilinear samples in each bin.

    Each box reads the level of its size. Positions are half-pixel centres: position i
    of a map lies at `(i + ½) stride`. Samples up to a position outside a map take its
    border, those further out are 0. Nothing is learned through the boxes.

    Args:
        maps: List of `(N, H_l, W_l, C)`, finest first; sizes may be unknown.
        boxes: Boxes `(N, R, 4)` in input pixels.
        strides: Strides of the maps.
        size: Bins per axis.
        finest_scale: Side of a box of level 0, as in `box_levels`.

    Returns:
        Features `(N, R, size, size, C)` in the maps' type.

    Reference: Mask R-CNN, Sect. 3.
    """
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    level = box_levels(boxes, len(maps), finest_scale)
    channels, dtype = maps[0].shape[-1], maps[0].dtype
    batch, count = ops.shape(boxes)[0], boxes.shape[1]

    # All levels as one row of positions per image: one gather reads any level.
    sizes = [ops.shape(x)[1:3] for x in maps]
    starts = [0]
    for height, width in sizes:
        starts.append(starts[-1] + height * width)
    packed = [ops.reshape(x, (-1, h * w, channels)) for x, (h, w) in zip(maps, sizes)]
    packed = ops.reshape(ops.concatenate(packed, axis=1), (-1, channels))

    def of_level(values: Sequence[Tensor], dtype: str) -> Tensor:
        values = ops.stack([ops.cast(v, dtype) for v in values])
        return ops.take(values, level, axis=0)[..., None]

    height = of_level([h for h, _ in sizes], "int32")  # (N, R, 1)
    width = of_level([w for _, w in sizes], "int32")
    start = of_level(starts[:-1], "int32")
    images = ops.arange(batch, dtype="int32") * starts[-1]
    start = start + images[:, None, None]
    stride = of_level(strides, "float32")
    rows = _corners(boxes[..., 1:2] / stride, boxes[..., 3:4] / stride, height, size)
    columns = _corners(boxes[..., 0:1] / stride, boxes[..., 2:3] / stride, width, size)

    total = 0.0
    for row, row_weight in rows:
        for column, column_weight in columns:
            # (N, R, size, 1) with (N, R, 1, size)
            index = (start + row * width)[..., :, None] + column[..., None, :]
            weight = row_weight[..., :, None] * column_weight[..., None, :]
            found = ops.take(packed, ops.reshape(index, (-1,)), axis=0)
            found = ops.cast(found, "float32")
            total = total + found * ops.reshape(weight, (-1, 1))
    total = ops.cast(total / SAMPLES**2, dtype)
    return ops.reshape(total, (-1, count, size, size, channels))


def _corners(low, high, limit, size):
    """Return what an axis of bins reads: pairs of positions and weights `(N, R, size)`.

    Args:
        low, high: Ends `(N, R, 1)` of the boxes in units of the stride.
        limit: Number `(N, R, 1)` of the map's positions along the axis, int32.
        size: Number of bins.
    """
    end = ops.cast(limit, "float32")
    bins = ops.arange(size, dtype="float32")
    pairs = []
    for sample in range(SAMPLES):
        share = (bins + (sample + 0.5) / SAMPLES) / size
        place = low + (high - low) * share - 0.5
        inside = ops.logical_and(place >= -1.0, place <= end)
        place = ops.clip(place, 0.0, end - 1.0)
        first = ops.cast(ops.floor(place), "int32")
        first = ops.maximum(ops.minimum(first, limit - 1), 0)
        part = place - ops.cast(first, "float32")
        inside = ops.cast(inside, "float32")
        pairs.append((first, (1.0 - part) * inside))
        pairs.append((ops.minimum(first + 1, limit - 1), part * inside))
    return pairs


@keras.saving.register_keras_serializable("kmlp")
class RoIAlign(Layer):
    """`roi_align` as a layer.

    Args:
        size: Bins per axis.
        strides: Strides of the maps.
        finest_scale: Side of a box of level 0, as in `box_levels`.

    Shapes: a list of the maps `(N, H_l, W_l, C)` and, last, boxes `(N, R, 4)`, to
    `(N, R, size, size, C)`.
    """

    def __init__(self, size, *, strides=(4, 8, 16, 32), finest_scale=56, **kwargs):
        # Boxes of half precision would err by pixels.
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        *maps, boxes = inputs
        return roi_align(maps, boxes, self.strides, self.size, self.finest_scale)

    def compute_output_spec(self, inputs: Sequence[Tensor]) -> Tensor:
        shape = self.compute_output_shape([x.shape for x in inputs])
        return keras.KerasTensor(shape, dtype=inputs[0].dtype)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        *maps, boxes = input_shape
        return (*boxes[:2], self.size, self.size, maps[0][-1])
