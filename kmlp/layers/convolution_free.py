"""Convolution and pooling without such an operation: as FCs and shifts of the map.

`kmlp.merge(model, dense=…)` puts these layers in the place of convolutions. A layer
that holds one offers `convolution_free(dense, shape)`, which returns its other form.
"""

import functools
import math
import operator
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp import algebra
from kmlp.errors import InputError, check_choice
from kmlp.keras_internals import flat_layers
from kmlp.layers.layer import (
    Layer,
    assign,
    copy,
    fill,
    fill_own,
    host,
    kernel_products,
    pair,
)
from kmlp.layers.perceptrons import SetSharingLinear
from kmlp.typing import KnownShape, Shape, Tensor

# What stands in the place of a convolution: one FC over all positions; one Dense over
# what all taps see, side by side; a sum of shifted maps, each times its tap.
POSITIONS, SHIFTS_FC, SHIFTS = FORMS = ("position FC", "shifts + FC", "shifts")
CHEAPER, ALL = "cheaper", "all"
Paddings = list[tuple[int, int]]
# Keras' own layers that convolve or pool.
_RANKS = (
    "Conv{}D Conv{}DTranspose DepthwiseConv{}D SeparableConv{}D MaxPooling{}D "
    "AveragePooling{}D"
)
CONVOLVING = tuple(
    getattr(keras.layers, name.format(rank))
    for rank in (1, 2, 3)
    for name in _RANKS.split()
    if hasattr(keras.layers, name.format(rank))
)


def chosen_form(
    dense: str, depthwise: bool, taps: int, positions: int | None
) -> str | None:
    """Return the cheaper form of a convolution by multiply-adds, `None` for its own.

    For every output and input channel a convolution counts its taps, an FC all
    positions. Where both are as many, an FC over positions spares a depthwise
    convolution its shifts, and a dense one has a smaller kernel without it.

    Args:
        dense: `"cheaper"` or `"all"`.
        depthwise: Whether there is one filter per channel.
        taps: Positions that a filter covers.
        positions: Positions of the map; `None` where they are not known, or no FC
            over them does the same.
    """
    if positions is not None and positions < taps + (dense == ALL and depthwise):
        return POSITIONS
    if dense == ALL:
        return SHIFTS if depthwise else SHIFTS_FC
    return None


def paddings(
    padding: str,
    sizes: Any,
    window: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Paddings | None:
    """Return the `(before, after)` of both axes, `None` where an open size decides.

    Args:
        padding: `"valid"`, `"same"` (Keras' own), or `"symmetric"`: `k // 2` each.
        sizes: Height and width.
        window, strides, dilation: Values of both axes.
    """
    found = []
    for size, taps, stride, step in zip(sizes, window, strides, dilation):
        if padding != "same":
            before = after = taps // 2 if padding == "symmetric" else 0
        elif stride > 1 and size is None:
            return None
        else:
            missing = step * (taps - 1)
            if stride > 1:
                missing = max((-(-size // stride) - 1) * stride + missing + 1 - size, 0)
            before, after = missing // 2, missing - missing // 2
        found.append((before, after))
    return found


def shifted(
    inputs: Tensor, axis: int, taps: int, stride: int, step: int = 1
) -> list[Tensor]:
    """Return what each tap of a window sees along an axis of a padded map."""
    if taps == stride == 1:
        return [inputs]
    before = (slice(None),) * axis
    ends = ((t * step, (t + 1 - taps) * step or None) for t in range(taps))
    return [inputs[(*before, slice(start, end, stride))] for start, end in ends]


class _Window(Layer):
    """A window that moves over a map; `window` is its argument's value."""

    def _place(self, input_shape, window, dilation=(1, 1)):
        self._window = window, self.strides, dilation
        self.pads = paddings(self.padding, input_shape[1:3], *self._window)
        if self.pads is None:
            raise InputError(
                f"{self.name}: padding='same' with strides depends on the size; give "
                "input_shape a known height and width. "
                f"Received: input_shape={tuple(input_shape)}"
            )

    def _size(self, input_shape):
        sizes = input_shape[1:3]
        pads = paddings(self.padding, sizes, *self._window) or self.pads
        return [
            None if n is None else (n + sum(p) - d * (k - 1) - 1) // s + 1
            for n, p, k, s, d in zip(sizes, pads, *self._window)
        ]


@keras.saving.register_keras_serializable("kmlp")
class DenseConv(_Window):
    """A convolution as one FC, or a depthwise one as an FC or a sum of shifted maps.

    Merging makes it, and fills it by `take`.

    Args:
        filters: Output channels; `None`: one filter per channel (depthwise).
        kernel_size: Integer or pair.
        strides: Integer or pair.
        padding: Padding, as of `paddings`.
        dilation: Integer or pair.
        use_bias: Whether there is a bias.
        activation: Activation, as Keras serialises it.
        form: Form, one of `FORMS`. `"position FC"` needs known sizes and, depthwise, a
            map that stays as large; the other two are of dense and depthwise ones.

    Shapes: as of the convolution, `(N, H, W, C)` in.

    Reference: RepMLPNet (Ding et al., 2022), Sect. 3, Eqs. 11-13.
    """

    def __init__(
        self,
        filters=None,
        kernel_size=3,
        *,
        strides=(1, 1),
        padding="same",
        dilation=(1, 1),
        use_bias=True,
        activation=None,
        form=SHIFTS_FC,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice(FORMS, form=form)
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.strides = pair(strides, "strides")
        self.dilation = pair(dilation, "dilation")
        self.activate = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        self._place(input_shape, self.kernel_size, self.dilation)
        self._sizes, channels = tuple(input_shape[1:3]), input_shape[-1]
        taps = math.prod(self.kernel_size)
        self.mix: Any = None
        self.kernel: Any = None
        self.bias: Any = None
        if self.form == SHIFTS:
            self.kernel = self.add_weight(
                name="kernel", shape=(taps, channels), initializer="zeros"
            )
            self.bias = self._bias(channels)
        elif self.filters is None:
            self.mix = SetSharingLinear(
                channels,
                use_bias=self.use_bias,
                kernel_initializer="zeros",
                name="mix",
                dtype=self.dtype_policy,
            )
            self.mix.build(input_shape)
        else:
            width, units = taps * channels, self.filters
            if self.form == POSITIONS:
                width = math.prod(self._sizes) * channels
                units *= math.prod(self._size(input_shape))
            self.mix = keras.layers.Dense(
                units,
                use_bias=self.use_bias,
                kernel_initializer="zeros",
                name="mix",
                dtype=self.dtype_policy,
            )
            self.mix.build((None, width))

    def call(self, inputs: Tensor) -> Tensor:
        return self.activate(self._convolved(inputs))

    def _convolved(self, inputs):
        if self.form == POSITIONS:
            if self.filters is None:
                return self.mix(inputs)
            x = self.mix(ops.reshape(inputs, (-1, math.prod(inputs.shape[1:]))))
            return ops.reshape(x, self.compute_output_shape((-1, *inputs.shape[1:])))
        if any(map(any, self.pads)):
            inputs = ops.pad(inputs, [(0, 0), *self.pads, (0, 0)])
        rows, columns = zip(*self._window)
        seen = [x for r in shifted(inputs, 1, *rows) for x in shifted(r, 2, *columns)]
        if self.form == SHIFTS:
            taps = ops.unstack(ops.convert_to_tensor(self.kernel), len(seen), axis=0)
            x = functools.reduce(operator.add, map(operator.mul, seen, taps))
            return x if self.bias is None else x + self.bias
        x = ops.concatenate(seen, axis=-1) if len(seen) > 1 else seen[0]
        size = x.shape[1:3] if None not in x.shape[1:3] else ops.shape(x)[1:3]
        x = self.mix(ops.reshape(x, (-1, x.shape[-1])))
        return ops.reshape(x, (-1, *size, self.filters))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        channels = input_shape[-1] if self.filters is None else self.filters
        return (input_shape[0], *self._size(input_shape), channels)

    def multiply_adds(self, input_shape: KnownShape) -> int:
        if isinstance(self.mix, SetSharingLinear):
            return self.mix.multiply_adds(input_shape)
        if self.form == POSITIONS:
            return math.prod(self.mix.kernel.shape)
        kernel = self.kernel if self.mix is None else self.mix.kernel
        return kernel_products(self.compute_output_shape(input_shape), kernel)

    def take(self, kernel: np.ndarray, bias: Any) -> None:
        """Take over a convolution.

        Args:
            kernel: Kernel as Keras has it, `(kh, kw, C, filters)` or `(kh, kw, C, 1)`.
            bias: Bias `(filters,)`, `None` without one.
        """
        if self.form == POSITIONS:
            size = self._size((None, *self._sizes, None))
            depthwise = self.filters is None
            kernel = algebra.conv_to_fc(
                kernel[..., 0] if depthwise else kernel,
                self._sizes,
                strides=self.strides,
                padding=self.pads,
                dilation=self.dilation,
            )
            if depthwise:
                bias = (
                    None if bias is None else algebra.repeat_bias(bias, kernel.shape[1])
                )
            else:
                # (filters, h', w', C, h, w) -> (h, w, C, h', w', filters)
                kernel = kernel.reshape(self.filters, *size, -1, *self._sizes)
                kernel = kernel.transpose(4, 5, 3, 1, 2, 0)
                bias = None if bias is None else np.tile(bias, math.prod(size))
        target = self if self.mix is None else self.mix
        assign(target, kernel=kernel.reshape(target.kernel.shape), bias=bias)


@keras.saving.register_keras_serializable("kmlp")
class ShiftedPooling(_Window):
    """The largest or the mean of a window, as maxima or sums of shifted maps.

    Both go one axis after the other. Padding never counts: for a maximum the border
    is repeated, which a window there sees anyway; a mean is of what lies on the map.

    Args:
        pool_size: Integer or pair.
        strides: Integer or pair.
        padding: Padding, `"valid"` or `"same"`.
        kind: Kind of pooling, `"max"` or `"average"`.

    Shapes: as of the pooling, `(N, H, W, C)` in.
    """

    form = SHIFTS

    def __init__(
        self,
        pool_size=(2, 2),
        *,
        strides=(2, 2),
        padding="valid",
        kind="max",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice(("max", "average"), kind=kind)
        self.pool_size = pair(pool_size, "pool_size")
        self.strides = pair(strides, "strides")

    def build(self, input_shape: Shape) -> None:
        self._place(input_shape, self.pool_size)

    def call(self, inputs: Tensor) -> Tensor:
        x, largest = inputs, self.kind == "max"
        for axis, window in enumerate(zip(self.pads, *self._window), 1):
            (before, after), taps, stride, _ = window
            if largest and (before or after):
                first, last = (
                    x[(slice(None),) * axis + (end,)]
                    for end in (slice(0, 1), slice(-1, None))
                )
                x = ops.concatenate([first] * before + [x] + [last] * after, axis=axis)
            elif before or after:
                pads = [(0, 0)] * 4
                pads[axis] = before, after
                x = ops.pad(x, pads)
            seen = shifted(x, axis, taps, stride)
            x = functools.reduce(ops.maximum if largest else operator.add, seen)
            if not largest:
                x = x * self._shares(inputs.shape[axis], axis, *window)
        return x

    def _shares(self, size, axis, pads, taps, stride, _):
        """Return one over the number of taps that fall on the map."""
        if not any(pads):
            return 1 / taps
        inside = np.pad(np.ones(size), pads)
        counts = np.lib.stride_tricks.sliding_window_view(inside, taps)[::stride].sum(
            -1
        )
        shares = (1 / counts).reshape((-1, 1, 1) if axis == 1 else (-1, 1))
        return ops.convert_to_tensor(shares, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *self._size(input_shape), input_shape[-1])

    def multiply_adds(self, input_shape: KnownShape) -> int:
        """Return 0: the papers do not count pooling."""
        return 0


def convolution_free(layer: keras.Layer, dense: str, shape: Shape | None) -> Any:
    """Return a layer's form without a convolution, `None` where it has none.

    Args:
        layer: A layer that offers one, or a Keras convolution or pooling.
        dense: `"cheaper"` or `"all"`.
        shape: Shape of its inputs wherever it is called, sizes `None` where they are
            open or differ; `None` where nothing is known.
    """
    if hasattr(layer, "convolution_free"):
        return layer.convolution_free(dense, shape)
    if getattr(layer, "data_format", None) != "channels_last":
        return None
    built = (layer.get_build_config() or {}).get("input_shape")
    shape = shape or (built and (None, None, None, built[-1]))
    if type(layer) in _KINDS and dense == ALL and shape:
        twin = ShiftedPooling(
            layer.pool_size,
            strides=layer.strides,
            padding=layer.padding,
            kind=_KINDS[type(layer)],
            **_common(layer),
        )
        open_sizes = None in shape[1:3] and twin.padding == "same"
        return None if open_sizes else _built(twin, shape)
    if type(layer) not in _CONVOLUTIONS or not shape:
        return None
    depthwise = type(layer) is keras.layers.DepthwiseConv2D
    several = layer.depth_multiplier if depthwise else layer.groups
    window = (layer.kernel_size, layer.strides, layer.dilation_rate)
    pads = paddings(layer.padding, shape[1:3], *window)
    if several > 1 or pads is None:
        return None
    taps, positions = math.prod(layer.kernel_size), None
    if not depthwise or (layer.padding == "same" and set(layer.strides) == {1}):
        positions = positions_of(layer, shape)
    form = chosen_form(dense, depthwise, taps, positions)
    if form is None:
        return None
    twin = DenseConv(
        None if depthwise else layer.filters,
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        dilation=layer.dilation_rate,
        use_bias=layer.use_bias,
        activation=keras.activations.serialize(layer.activation),
        form=form,
        **_common(layer),
    )
    _built(twin, shape).take(host(layer.kernel), host(layer.bias))
    return twin


_KINDS = {keras.layers.MaxPooling2D: "max", keras.layers.AveragePooling2D: "average"}
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def _common(layer):
    names = {"name": layer.name, "dtype": layer.dtype_policy}
    return {**names, "trainable": layer.trainable}


def _built(layer, shape):
    layer.build(shape)
    layer.built = True
    return layer


def positions_of(layer: keras.Layer, shape: Shape | None) -> int | None:
    """Return the positions of a layer's map where it always has the size of its build.

    Args:
        layer: A built layer.
        shape: Shape of its inputs, as of `convolution_free`.
    """
    built = (layer.get_build_config() or {}).get("input_shape")
    sizes: Any = tuple(shape[1:3]) if shape else (None,)
    same = None not in sizes and built is not None and sizes == tuple(built[1:3])
    return math.prod(sizes) if same else None


def with_form(layer: Layer, form: str | None) -> Layer | None:
    """Return a copy of a layer in which every convolution has a form.

    Args:
        layer: Layer that makes its convolutions by `conv2d`, merged; its argument
            `form` says which.
        form: One of `FORMS`; `None` gives `None`.
    """
    if form is None:
        return None
    twin = copy(layer, form=form)
    fill_own(twin, layer)
    parts = (flat_layers(each, False, False) for each in (twin, layer))
    for new, old in zip(*parts, strict=True):
        if isinstance(new, DenseConv):
            new.take(host(old.kernel), host(old.bias))
        else:
            fill(new, old)
    return twin
