"""Anchors: the boxes that predictions at every place of every map start from."""

import dataclasses

import numpy as np
from keras import ops

from kmlp.errors import InputError


@dataclasses.dataclass(frozen=True)
class Anchors:
    """Boxes of fixed forms at every place of maps of several strides.

    Args:
        scales: sides of the square form, in strides.
        ratios: height / width of the forms; the area stays.
        strides: pixels between places, one for each level.

    Reference: Ren et al., Faster R-CNN, 2015, Sect. 3.1; Lin et al., Focal Loss for
    Dense Object Detection, 2017, Sect. 4.
    """

    scales: tuple
    ratios: tuple
    strides: tuple

    @property
    def count(self):
        """Anchors at a place."""
        return len(self.scales) * len(self.ratios)

    def forms(self, stride):
        """The anchors at place (0, 0) as a NumPy array `(count, 4)`.

        In order of ratio, then scale.
        """
        root = np.sqrt(np.asarray(self.ratios, "float64"))[:, None]
        side = stride * np.asarray(self.scales, "float64")[None]
        half_width, half_height = (side / root).ravel() / 2, (side * root).ravel() / 2
        forms = [-half_width, -half_height, half_width, half_height]
        return np.stack(forms, axis=-1).astype("float32")

    def boxes(self, shapes):
        """All anchors of maps.

        Args:
            shapes: `(height, width)` of each level, integers or scalar tensors.

        Returns:
            a list of `(height · width · count, 4)`, one for each level, in order of
            row, column, ratio, scale; centres lie at (column · stride, row · stride).

        Raises:
            ValueError: another number of levels than of strides.
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
