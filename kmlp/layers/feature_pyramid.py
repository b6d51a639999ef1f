"""Maps of several scales brought together: the feature pyramid and its resizing."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.errors import check_choice
from kmlp.layers.conv_norm import ConvNorm
from kmlp.layers.layer import Layer, strided
from kmlp.typing import Shape, Tensor

EXTRAS = ("input", "output", "pool")


def upsample_nearest(maps: Tensor, like: Tensor) -> Tensor:
    """Return maps `(N, h, w, C)` at the size of `like`, by the nearest position.

    Row i takes row `floor(i h / H)`, as PyTorch's interpolation does; the half-pixel
    rule of Keras' resizing takes others where H is no multiple of h.
    """
    for axis in (1, 2):
        size, target = ops.shape(maps)[axis], ops.shape(like)[axis]
        places = ops.floor_divide(ops.arange(target, dtype="int32") * size, target)
        maps = ops.take(maps, places, axis=axis)
    return maps


def resize_bilinear(maps: Tensor, size: Sequence[Any]) -> Tensor:
    """Return maps `(N, h, w, C)` at `size`, bilinear with half-pixel centres.

    As PyTorch's `interpolate(…, align_corners=False)`; computed in float32.
    """
    if not all(isinstance(side, int) for side in size):
        return _resized_to_unknown(maps, size)
    if tuple(maps.shape[1:3]) == tuple(size):
        return maps
    return ops.image.resize(
        maps, size, interpolation="bilinear", data_format="channels_last"
    )


def _resized_to_unknown(maps, size):
    """Return the same for a size that the graph does not know, as Keras' must."""
    dtype, lengths = maps.dtype, ops.shape(maps)[1:3]
    maps = ops.cast(maps, "float32")
    for axis, (length, side) in enumerate(zip(lengths, size), 1):
        length = ops.cast(length, "float32")
        places = (ops.arange(side, dtype="float32") + 0.5) * (
            length / ops.cast(side, "float32")
        )
        places = ops.clip(places - 0.5, 0.0, length - 1.0)
        first = ops.floor(places)
        share = ops.reshape(places - first, (-1, 1, 1) if axis == 1 else (-1, 1))
        second = ops.minimum(first + 1.0, length - 1.0)
        low, high = (
            ops.take(maps, ops.cast(index, "int32"), axis=axis)
            for index in (first, second)
        )
        maps = low + (high - low) * share
    return ops.cast(maps, dtype)


@keras.saving.register_keras_serializable("kmlp")
class FeaturePyramid(Layer):
    """Feature pyramid network: every level sees what the coarser ones know.

    Each map goes through a 1×1 convolution; from the coarsest on, a map is enlarged by
    its nearest positions to the next finer one's exact size and added; a 3×3
    convolution smooths each sum. Convolutions have biases and neither norm nor
    activation.

    Args:
        filters: Channels of every level.
        extra: Number of levels beyond the coarsest.
        extra_from: Origin of those. `"input"`: a 3×3 convolution of stride 2 on the
            coarsest map that came in, further ones on the level before (RetinaNet);
            `"output"`: the first on the coarsest level that goes out; `"pool"`: every
            second position of the level before, without weights (Mask R-CNN).

    Shapes: a list of `(N, H_i, W_i, C_i)`, finest first, to a list of
    `(N, H_i, W_i, filters)` with `extra` more, each of half the size, rounded up.

    Reference: Lin et al., Feature Pyramid Networks for Object Detection, 2017.
    """

    def __init__(self, filters=256, *, extra=0, extra_from="input", **kwargs):
        super().__init__(**kwargs)
        check_choice(EXTRAS, extra_from=extra_from)

    def build(self, input_shape: Sequence[Shape]) -> None:
        def conv(
            kernel_size: int, name: str, shape: Shape, strides: int = 1
        ) -> ConvNorm:
            layer = ConvNorm(
                self.filters,
                kernel_size,
                strides=strides,
                use_bias=True,
                norm=None,
                name=name,
                dtype=self.dtype_policy,
            )
            layer.build(shape)
            return layer

        between = (None, None, None, self.filters)
        self.lateral = [
            conv(1, f"lateral{i}", tuple(s)) for i, s in enumerate(input_shape)
        ]
        self.smooth = [conv(3, f"smooth{i}", between) for i in range(len(self.lateral))]
        self.further = []
        if self.extra_from != "pool":
            first = input_shape[-1] if self.extra_from == "input" else between
            shapes = [tuple(first), *[between] * self.extra][: self.extra]
            self.further = [
                conv(3, f"extra{i}", s, strides=2) for i, s in enumerate(shapes)
            ]

    def call(self, inputs: Any) -> Any:
        maps = [lateral(x) for lateral, x in zip(self.lateral, inputs)]
        for i in reversed(range(len(maps) - 1)):
            maps[i] = maps[i] + upsample_nearest(maps[i + 1], maps[i])
        maps = [smooth(x) for smooth, x in zip(self.smooth, maps)]
        if self.extra_from == "pool":
            for _ in range(self.extra):
                maps.append(maps[-1][:, ::2, ::2])
            return maps
        x = inputs[-1] if self.extra_from == "input" else maps[-1]
        for conv in self.further:
            x = conv(x)
            maps.append(x)
        return maps

    def compute_output_shape(self, input_shape: Any) -> Any:
        shapes = [(*shape[:3], self.filters) for shape in input_shape]
        for _ in range(self.extra):
            batch, *size, _ = shapes[-1]
            shapes.append((batch, *strided(size, (2, 2)), self.filters))
        return shapes

    def multiply_adds(self, input_shape: Any) -> int:
        """Return those of one image, given the shapes of all maps."""
        shapes = self.compute_output_shape(input_shape)
        before = len(input_shape) - 1
        first = input_shape[-1] if self.extra_from == "input" else shapes[before]
        further = [first, *shapes[before + 1 :]]
        pairs = zip(
            [*self.lateral, *self.smooth, *self.further],
            [*input_shape, *shapes[: before + 1], *further],
        )
        return sum(conv.multiply_adds(shape) for conv, shape in pairs)


@keras.saving.register_keras_serializable("kmlp")
class Resize(Layer):
    """Bilinear resizing with half-pixel centres.

    Args:
        factor: Factor of both sides; `None`: the size of a second input is taken.

    Shapes: `(N, h, w, C)`, or that and `(N, H, W, …)`, to `(N, h·factor, w·factor, C)`
    or `(N, H, W, C)`.
    """

    def __init__(self, factor=None, **kwargs):
        super().__init__(**kwargs)

    def call(self, inputs: Any) -> Any:
        if self.factor is None:
            maps, like = inputs
            return resize_bilinear(maps, ops.shape(like)[1:3])
        _, height, width, _ = ops.shape(inputs)
        return resize_bilinear(inputs, (height * self.factor, width * self.factor))

    def compute_output_shape(self, input_shape: Any) -> Any:
        if self.factor is None:
            shape, like = input_shape
            return (shape[0], *like[1:3], shape[3])
        batch, *size, channels = input_shape
        size = [None if s is None else s * self.factor for s in size]
        return (batch, *size, channels)

    def multiply_adds(self, input_shape: Any) -> int:
        """Return 0: the papers do not count interpolation."""
        return 0


@keras.saving.register_keras_serializable("kmlp")
class AdaptivePooling(Layer):
    """Averages over a fixed number of bins that cover a map of any size.

    Bin i of B along a side of n positions covers `floor(i n / B)` to
    `ceil((i + 1) n / B)`; bins overlap where B does not divide n.

    Args:
        bins: Number of bins along either side.

    Shapes: `(N, H, W, C)` to `(N, bins, bins, C)`.

    Reference: Zhao et al., Pyramid Scene Parsing Network, 2017, as PyTorch's
    AdaptiveAvgPool2d computes it.
    """

    def __init__(self, bins, **kwargs):
        super().__init__(**kwargs)

    def call(self, inputs: Any) -> Any:
        _, height, width, _ = ops.shape(inputs)
        rows, columns = (
            ops.cast(self._matrix(size), inputs.dtype) for size in (height, width)
        )
        x = ops.einsum("bh,nhwc->nbwc", rows, inputs)
        return ops.einsum("bw,nhwc->nhbc", columns, x)

    def _matrix(self, size):
        """Return `(bins, size)`, the share of a position in the mean of a bin."""
        known = isinstance(size, int)
        bins = np.arange(self.bins, dtype="int32")[:, None]
        places = np.arange(size)[None] if known else ops.arange(size)[None]
        start, end = bins * size // self.bins, -(-(bins + 1) * size // self.bins)
        if known:
            inside = (places >= start) & (places < end)
            return (inside / (end - start)).astype("float32")
        inside = ops.logical_and(places >= start, places < end)
        return ops.cast(inside, "float32") / ops.cast(end - start, "float32")

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.bins, self.bins, input_shape[-1])

    def multiply_adds(self, input_shape: Any) -> int:
        """Return 0: the papers do not count pooling."""
        return 0
