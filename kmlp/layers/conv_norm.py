"""Convolution and norm as one layer, in either order.

Among them ResMLP's cross-patch sublayer that is a convolution.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp import algebra
from kmlp.errors import InputError
from kmlp.layers.convolution_free import (
    DenseConv,
    chosen_form,
    positions_of,
    with_form,
)
from kmlp.layers.initializers import start
from kmlp.layers.layer import (
    Layer,
    activation_function,
    assign,
    copy,
    host,
    kernel_products,
    pair,
    strided,
)
from kmlp.layers.norms import (
    affine_terms,
    apply_norm,
    build_norm,
    own_norm,
    remaining_norm,
)
from kmlp.typing import KnownShape, Shape, Tensor


def conv2d(
    filters: int | None,
    kernel_size: int | tuple[int, int],
    channels: int,
    *,
    strides: int = 1,
    depthwise: bool = False,
    form: str | None = None,
    kernel_initializer: Any,
    bias_initializer: Any = None,
    **kwargs: Any,
) -> keras.Layer:
    """Return a Conv2D or DepthwiseConv2D over NHWC maps; strided, it pads nothing.

    A `DenseConv` in its place, which merging fills, pads strided ones symmetrically.

    Args:
        filters: Output channels; ignored where `depthwise`.
        kernel_size: Integer or pair.
        channels: Input channels.
        strides: Stride along both axes.
        depthwise: Whether there is one filter per channel.
        form: Form of a `DenseConv` in place of the convolution, or `None`.
        kernel_initializer, bias_initializer: Initializers, as of `start`.
        **kwargs: Other arguments of the Keras layer.
    """
    if form is not None:
        return DenseConv(
            None if depthwise else filters,
            kernel_size,
            strides=strides,
            padding="same" if strides == 1 else "symmetric",
            form=form,
            **kwargs,
        )
    taps = math.prod(pair(kernel_size, "kernel_size"))
    fan_in = taps if depthwise else taps * channels
    kernel, bias = start(kernel_initializer, fan_in, bias_initializer)
    kwargs |= {
        "strides": strides,
        "padding": "same" if strides == 1 else "valid",
        "data_format": "channels_last",
        "bias_initializer": bias,
    }
    if depthwise:
        return keras.layers.DepthwiseConv2D(
            kernel_size, depthwise_initializer=kernel, **kwargs
        )
    return keras.layers.Conv2D(
        filters, kernel_size, kernel_initializer=kernel, **kwargs
    )


def pad_symmetric(inputs: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Pad a map with `k // 2` zeros on every side.

    Keras' own `same` padding of a strided convolution pads even maps at the
    bottom and right only, which the published networks do not.
    """
    kh, kw = kernel_size
    if kh == kw == 1:
        return inputs
    return ops.pad(inputs, [[0, 0], [kh // 2, kh // 2], [kw // 2, kw // 2], [0, 0]])


def conv_products(
    conv: keras.Layer, input_shape: KnownShape, output_shape: Any = None
) -> int:
    """Return the multiply-adds of what `conv2d` made."""
    if isinstance(conv, DenseConv):
        return conv.multiply_adds(input_shape)
    return kernel_products(output_shape or input_shape, conv.kernel)


class _Convolution(Layer):
    """A layer with one convolution, `conv`, that other forms can take the place of."""

    def convolution_free(self, dense: str, shape: Shape | None) -> Layer | None:
        """Return the merged layer with its convolution as FC or shifts.

        Args:
            dense, shape: As of `kmlp.layers.convolution_free.convolution_free`.
        """
        if self.form is not None:
            return None
        depthwise = isinstance(self.conv, keras.layers.DepthwiseConv2D)
        taps, positions = math.prod(self.kernel_size), None
        if not depthwise or set(self.conv.strides) == {1}:
            positions = positions_of(self, shape)
        return with_form(self, chosen_form(dense, depthwise, taps, positions))


@keras.saving.register_keras_serializable("kmlp")
class ConvNorm(_Convolution):
    """Convolution with symmetric padding, norm, activation.

    The norm folds into the convolution at inference.

    Args:
        filters: Output channels; ignored where `depthwise`.
        kernel_size: Odd integer or pair.
        strides: Stride along both axes.
        depthwise: Whether there is one filter per channel.
        use_bias: Whether there is a bias of the convolution.
        norm: Kind of norm, `"batch"` or `None`.
        activation: Name of a Keras activation, or `None`.
        epsilon: Constant of the norm.
        kernel_initializer: Initializer of the convolution.
        bias_initializer: Initializer of its bias; `None`: that of the kernel where it
            is `FanInUniform`, zeros otherwise.
        form: Form of the convolution at inference, as `kmlp.merge(model, dense=…)`
            chose it; `None`: a convolution.

    Shapes: `(N, H, W, C)` to `(N, ceil(H / strides), ceil(W / strides), filters)`.

    References: ConvMLP Sect. 3.2, 3.3; sMLPNet Fig. 3.
    """

    def __init__(
        self,
        filters=None,
        kernel_size=3,
        *,
        strides=1,
        depthwise=False,
        use_bias=False,
        norm="batch",
        activation=None,
        epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        bias_initializer=None,
        form=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.activate = activation_function(activation)

    def build(self, input_shape: Any) -> None:
        batch, *size, channels = input_shape
        self.conv = conv2d(
            self.filters,
            self.kernel_size,
            channels,
            strides=self.strides,
            depthwise=self.depthwise,
            form=self.form,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer,
            bias_initializer=self.bias_initializer,
            name="conv",
            dtype=self.dtype_policy,
        )
        self.normalize = own_norm(self)
        if self.strides > 1 and self.form is None:
            padding = (2 * (k // 2) for k in self.kernel_size)
            size = [None if s is None else s + p for s, p in zip(size, padding)]
        self.conv.build((batch, *size, channels))
        build_norm(self.normalize, self.compute_output_shape(input_shape))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = inputs
        if self.strides > 1 and self.form is None:
            x = pad_symmetric(x, self.kernel_size)
        return self.activate(apply_norm(self.normalize, self.conv(x), training))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *size, channels = input_shape
        size = strided(size, (self.strides, self.strides))
        return (batch, *size, channels if self.depthwise else self.filters)

    def multiply_adds(self, input_shape: KnownShape) -> int:
        shape = self.compute_output_shape(input_shape)
        return conv_products(self.conv, input_shape, shape)

    def merged(self) -> Layer:
        """Return a biased convolution with the norm folded in."""
        if self.norm is None:
            return copy(self)
        twin = copy(self, norm=None, use_bias=True)
        kernel = host(self.conv.kernel)
        # A depthwise kernel (kh, kw, C, 1) has its output on the third axis.
        outputs_last = kernel[..., 0] if self.depthwise else kernel
        folded, bias = algebra.fold_after(
            outputs_last, host(self.conv.bias), *affine_terms(self.normalize)
        )
        kernel = folded.reshape(kernel.shape)
        assign(twin.conv, kernel=kernel, bias=bias)
        return twin


@keras.saving.register_keras_serializable("kmlp")
class NormDepthwiseConv(_Convolution):
    """Layer norm, then a depthwise convolution without bias: ConvMLP's connection.

    At inference the norm's scale folds into the kernel. Its shift does not: at
    the zero-padded border it would reach in from outside the map.

    Args:
        kernel_size: Odd integer.
        norm_scale: Whether the norm has its learned scale.
        epsilon: Constant of the norm.
        kernel_initializer: Initializer of the convolution.
        form: Form of the convolution, as of `ConvNorm`.

    Shapes: `(N, H, W, C)` in and out.

    Reference: ConvMLP Sect. 3.4.
    """

    def __init__(
        self,
        kernel_size=3,
        *,
        norm_scale=True,
        epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        form=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.normalize = keras.layers.LayerNormalization(
            epsilon=epsilon, scale=norm_scale, name="norm", dtype=self.dtype_policy
        )

    def build(self, input_shape: KnownShape) -> None:
        self.normalize.build(input_shape)
        self.conv = conv2d(
            None,
            self.kernel_size,
            input_shape[-1],
            depthwise=True,
            form=self.form,
            use_bias=False,
            kernel_initializer=self.kernel_initializer,
            name="conv",
            dtype=self.dtype_policy,
        )
        self.conv.build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        return self.conv(self.normalize(inputs))

    def multiply_adds(self, input_shape: KnownShape) -> int:
        return conv_products(self.conv, input_shape)

    def merged(self) -> Layer:
        """Return the layer with the norm's scale in the kernel."""
        if not self.norm_scale:
            return copy(self)
        gamma, beta = host(self.normalize.gamma), host(self.normalize.beta)
        # A zero gamma leaves only the shift, which must not be divided by zero.
        floor = 1e-6 * max(abs(gamma).max(), 1e-30)
        scale = gamma.copy()
        scale[abs(scale) < floor] = floor
        twin = copy(self, norm_scale=False)
        assign(twin.normalize, beta=beta / scale)
        assign(twin.conv, kernel=host(self.conv.kernel) * scale[:, None])
        return twin


@keras.saving.register_keras_serializable("kmlp")
class ConvMixing(_Convolution):
    """Norm, convolution, per-channel scale: ResMLP's communication by convolution.

    Padding is zero behind the norm, so the norm's shift does not reach in from outside
    the map. The inference form keeps the convolution, with the norm's scale and the
    scale after it in its kernel, and `shift`, what shift and bias come to at every
    position. The residual addition is the caller's.

    Args:
        kernel_size: Odd integer or pair.
        depthwise: Whether there is one filter per channel.
        norm: Kind of norm, `"affine"`, `"layer"`, `"batch"`, `"l2"` or `None`.
        norm_affine: Whether a layer or l2 norm has its learned scale and shift.
        layer_scale: Initial value of the scale, or `None`.
        folded: Whether this is the inference form.
        epsilon: Constant of the norm.
        kernel_initializer: Initializer of the convolution.
        form: Form of the convolution, as of `ConvNorm`.

    Shapes: `(N, H, W, C)` in and out, sizes known.

    Raises:
        InputError: If sizes are unknown.

    Reference: ResMLP (Touvron et al., 2021), Sect. 3.5 and Table 4.
    """

    def __init__(
        self,
        kernel_size=3,
        *,
        depthwise=False,
        norm="affine",
        norm_affine=True,
        layer_scale=None,
        folded=False,
        epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        form=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.normalize = own_norm(self)

    def build(self, input_shape: Any) -> None:
        _, height, width, channels = input_shape
        if height is None or width is None:
            raise InputError(
                f"{self.name}: what the norm's shift comes to depends on the distance "
                "to the border; give input_shape a known height and width. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        build_norm(self.normalize, input_shape)
        self.conv = conv2d(
            channels,
            self.kernel_size,
            channels,
            depthwise=self.depthwise,
            form=self.form,
            use_bias=not self.folded,
            kernel_initializer=self.kernel_initializer,
            name="conv",
            dtype=self.dtype_policy,
        )
        self.conv.build(input_shape)
        self._size = height, width
        self.gamma = self.shift = None
        if self.folded:
            self.shift = self.add_weight(
                name="shift", shape=(height, width, channels), initializer="zeros"
            )
        else:
            self.gamma = self._gamma(channels)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = self.conv(apply_norm(self.normalize, inputs, training))
        if self.folded:
            return x + self.shift
        return x if self.gamma is None else x * self.gamma

    def multiply_adds(self, input_shape: KnownShape) -> int:
        return conv_products(self.conv, input_shape)

    def merged(self) -> Layer:
        """Return the layer with scales in the kernel, and shifts in `shift`."""
        if self.folded:
            return copy(self)
        kernel = host(self.conv.kernel)
        gamma = 1.0 if self.gamma is None else host(self.gamma)
        ones = np.ones(kernel.shape[2])
        alpha, beta = affine_terms(self.normalize) or (ones, 0 * ones)
        twin = copy(self, **remaining_norm(self.norm), layer_scale=None, folded=True)
        # Depthwise kernels (kh, kw, C, 1) have their outputs on the third axis.
        after = np.reshape(gamma * ones, (-1, 1)) if self.depthwise else gamma
        assign(twin.conv, kernel=kernel * alpha[:, None] * after)
        shift = gamma * (self._constant(kernel, beta) + host(self.conv.bias))
        assign(twin, shift=shift)
        return twin

    def _constant(self, kernel, values):
        """Return what the kernel makes of a map that is constant in each channel."""
        taps = [
            _within(size, count) for size, count in zip(self._size, kernel.shape[:2])
        ]
        equation = "ai,bj,ijcd,c->abc" if self.depthwise else "ai,bj,ijcd,c->abd"
        return np.einsum(equation, *taps, kernel, values, optimize=True)


def _within(length, taps):
    """Return `(length, taps)`: 1 where a tap at a position falls within the map."""
    read = np.arange(length)[:, None] + np.arange(taps) - taps // 2
    return ((read >= 0) & (read < length)).astype("float64")
