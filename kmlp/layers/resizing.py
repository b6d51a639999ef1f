"""Maps brought to other sizes, as layers."""

import keras
import numpy as np
from keras import ops

from kmlp.layers.feature_pyramid import resize_bilinear
from kmlp.layers.layer import Layer


@keras.saving.register_keras_serializable("kmlp")
class Resize(Layer):
    """Bilinear resizing with half-pixel centres.

    Args:
        factor: of both sides; `None`: to the size of a second input.

    Shapes: `(N, h, w, C)`, or that and `(N, H, W, …)`, to `(N, h·factor, w·factor, C)`
    or `(N, H, W, C)`.
    """

    arguments = ("factor",)

    def __init__(self, factor=None, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        if self.factor is None:
            maps, like = inputs
            return resize_bilinear(maps, ops.shape(like)[1:3])
        _, height, width, _ = ops.shape(inputs)
        return resize_bilinear(inputs, (height * self.factor, width * self.factor))

    def compute_output_shape(self, input_shape):
        if self.factor is None:
            shape, like = input_shape
            return (shape[0], *like[1:3], shape[3])
        batch, *size, channels = input_shape
        size = [None if s is None else s * self.factor for s in size]
        return (batch, *size, channels)

    def multiply_adds(self, input_shape):
        """Interpolation is not counted, as the papers do not."""
        return 0


@keras.saving.register_keras_serializable("kmlp")
class AdaptivePooling(Layer):
    """Averages over a fixed number of bins that cover a map of any size.

    Bin i of B along a side of n positions covers `floor(i n / B)` to
    `ceil((i + 1) n / B)`; bins overlap where B does not divide n.

    Args:
        bins: along either side.

    Shapes: `(N, H, W, C)` to `(N, bins, bins, C)`.

    Reference: Zhao et al., Pyramid Scene Parsing Network, 2017, as PyTorch's
    AdaptiveAvgPool2d computes it.
    """

    arguments = ("bins",)

    def __init__(self, bins, **kwargs):
        super().__init__(**kwargs)
        self.bins = bins

    def call(self, inputs):
        _, height, width, _ = ops.shape(inputs)
        rows, columns = (
            ops.cast(self._matrix(size), inputs.dtype) for size in (height, width)
        )
        x = ops.einsum("bh,nhwc->nbwc", rows, inputs)
        return ops.einsum("bw,nhwc->nhbc", columns, x)

    def _matrix(self, size):
        """`(bins, size)`: the share of a position in the mean of a bin."""
        known = isinstance(size, int)
        bins = np.arange(self.bins, dtype="int32")[:, None]
        places = np.arange(size)[None] if known else ops.arange(size)[None]
        start, end = bins * size // self.bins, -(-(bins + 1) * size // self.bins)
        if known:
            inside = (places >= start) & (places < end)
            return (inside / (end - start)).astype("float32")
        inside = ops.logical_and(places >= start, places < end)
        return ops.cast(inside, "float32") / ops.cast(end - start, "float32")

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.bins, self.bins, input_shape[-1])

    def multiply_adds(self, input_shape):
        """Pooling is not counted, as the papers do not."""
        return 0
