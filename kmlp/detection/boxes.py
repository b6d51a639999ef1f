"""Boxes `x1, y1, x2, y2` in pixels: overlap, and the code that heads predict.

Boxes are float32 and continuous: a box is `x2 - x1` wide.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from kmlp.errors import InputError
from kmlp.typing import Shape, Tensor

# Predicted sizes stay within this factor of the anchor's, so that no exponential
# overflows.
MAX_LOG_SCALE = math.log(1000 / 16)
# Sides and unions below this count as this: padding boxes give no infinities.
TINY = 1e-6


def area(boxes: Tensor) -> Tensor:
    """Return the areas of boxes, `(…, 4)` to `(…,)`; zero where a side is negative."""
    width = ops.maximum(boxes[..., 2] - boxes[..., 0], 0.0)
    height = ops.maximum(boxes[..., 3] - boxes[..., 1], 0.0)
    return width * height


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of all pairs; 0 for boxes without area.

    Args:
        a: Boxes `(…, A, 4)`.
        b: Boxes `(…, B, 4)`; leading axes broadcast.

    Returns:
        Overlaps `(…, A, B)`, float32.
    """
    a, b = a[..., :, None, :], b[..., None, :, :]
    width = ops.minimum(a[..., 2], b[..., 2]) - ops.maximum(a[..., 0], b[..., 0])
    height = ops.minimum(a[..., 3], b[..., 3]) - ops.maximum(a[..., 1], b[..., 1])
    shared = ops.maximum(width, 0.0) * ops.maximum(height, 0.0)
    return shared / ops.maximum(area(a) + area(b) - shared, TINY)


def encode(
    anchors: Tensor, boxes: Tensor, std: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """Return what a head should predict at anchors to give boxes.

    Shifts of the centre in units of the anchor's size, and logarithms of the ratio of
    sizes, each divided by its `std`.

    Args:
        anchors, boxes: Anchors and boxes `(…, 4)`, of shapes that broadcast.
        std: Four positive numbers.

    Returns:
        Deltas `(…, 4)`: dx, dy, dw, dh.

    Reference: Ren et al., Faster R-CNN, 2015, Eq. 2.
    """
    ax, ay, aw, ah = _centred(anchors)
    bx, by, bw, bh = _centred(boxes)
    code = [(bx - ax) / aw, (by - ay) / ah, ops.log(bw / aw), ops.log(bh / ah)]
    return ops.stack([c / s for c, s in zip(code, std)], axis=-1)


def decode(
    anchors: Tensor,
    deltas: Tensor,
    std: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    size: Shape | None = None,
) -> Tensor:
    """Return the boxes that predictions at anchors mean: the inverse of `encode`.

    Args:
        anchors: Anchors `(…, 4)`.
        deltas: Deltas `(…, 4)`, of a shape that broadcasts with it; the logarithms of
            sizes are held within ±log(1000 / 16).
        std: Divisors, as for `encode`.
        size: Size `(height, width)` that boxes are clipped to, or `None`.

    Returns:
        Boxes `(…, 4)`.
    """
    x, y, width, height = _centred(anchors)
    dx, dy, dw, dh = (deltas[..., i] * std[i] for i in range(4))
    x, y = x + dx * width, y + dy * height
    width = width * ops.exp(ops.clip(dw, -MAX_LOG_SCALE, MAX_LOG_SCALE)) / 2
    height = height * ops.exp(ops.clip(dh, -MAX_LOG_SCALE, MAX_LOG_SCALE)) / 2
    boxes = ops.stack([x - width, y - height, x + width, y + height], axis=-1)
    return boxes if size is None else clip(boxes, size)


def clip(boxes: Tensor, size: Shape) -> Tensor:
    """Clip boxes `(…, 4)` to an image of `size` (height, width), numbers or scalars."""
    height, width = (ops.cast(s, "float32") for s in size)
    limit = ops.stack([width, height, width, height])
    return ops.minimum(ops.maximum(boxes, 0.0), limit)


def _centred(boxes):
    width = ops.maximum(boxes[..., 2] - boxes[..., 0], TINY)
    height = ops.maximum(boxes[..., 3] - boxes[..., 1], TINY)
    x = (boxes[..., 0] + boxes[..., 2]) / 2
    y = (boxes[..., 1] + boxes[..., 3]) / 2
    return x, y, width, height


@dataclasses.dataclass(frozen=True)
class Anchors:
    """Boxes of fixed forms at every place of maps of several strides.

    Args:
        scales: Sides of the square form, in strides.
        ratios: Height / width of the forms; the area stays.
        strides: Pixels between places, one for each level.

    Reference: Ren et al., Faster R-CNN, 2015, Sect. 3.1; Lin et al., Focal Loss for
    Dense Object Detection, 2017, Sect. 4.
    """

    scales: tuple[float, ...]
    ratios: tuple[float, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        """Return the number of anchors at a place."""
        return len(self.scales) * len(self.ratios)

    def forms(self, stride: int) -> np.ndarray:
        """Return the anchors at place (0, 0), `(count, 4)`.

        In order of ratio, then scale.
        """
        root = np.sqrt(np.asarray(self.ratios, "float64"))[:, None]
        side = stride * np.asarray(self.scales, "float64")[None]
        half_width, half_height = (side / root).ravel() / 2, (side * root).ravel() / 2
        forms = [-half_width, -half_height, half_width, half_height]
        return np.stack(forms, axis=-1).astype("float32")

    def boxes(self, shapes: Sequence[Shape]) -> list[Tensor]:
        """Return all anchors of maps.

        Args:
            shapes: Sizes `(height, width)` of each level, integers or scalar tensors.

        Returns:
            A list of `(height · width · count, 4)`, one for each level, in order of
            row, column, ratio, scale; centres lie at (column · stride, row · stride).

        Raises:
            InputError: If there are more or fewer levels than strides.
        """
        if len(shapes) != len(self.strides):
            raise InputError(
                f"Anchors need the shapes of {len(self.strides)} levels, one for each "
                f"stride of {self.strides}. Received: {len(shapes)} shapes"
            )
        return [self._level(h, w, s) for (h, w), s in zip(shapes, self.strides)]

    def _level(self, height, width, stride):
        y = ops.cast(ops.arange(height, dtype="int32"), "float32")[:, None] * stride
        x = ops.cast(ops.arange(width, dtype="int32"), "float32")[None] * stride
        x, y = x + ops.zeros_like(y), y + ops.zeros_like(x)
        places = ops.stack([x, y, x, y], axis=-1)  # (h, w, 4)
        boxes = places[:, :, None] + ops.convert_to_tensor(self.forms(stride))
        return ops.reshape(boxes, (-1, 4))
