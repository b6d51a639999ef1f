"""Convolution and norm as one layer, in either order."""

import math

import keras
from keras import ops

from kmlp import algebra
from kmlp.layers.layer import (
    Layer,
    activation_function,
    assign,
    copy,
    host,
    pair,
)
from kmlp.layers.norms import (
    affine_terms,
    apply_norm,
    normalization,
)


def conv2d(filters, kernel_size, *, strides=1, depthwise=False, **kwargs):
    """A Conv2D or DepthwiseConv2D over NHWC maps, without padding of its own."""
    if depthwise:
        kwargs["depthwise_initializer"] = kwargs.pop("kernel_initializer")
        return keras.layers.DepthwiseConv2D(
            kernel_size,
            strides=strides,
            padding="same" if strides == 1 else "valid",
            data_format="channels_last",
            **kwargs,
        )
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same" if strides == 1 else "valid",
        data_format="channels_last",
        **kwargs,
    )


def pad_symmetric(inputs, kernel_size):
    """Zero padding of `k // 2` on every side.

    Keras' own `same` padding of a strided convolution pads even maps at the
    bottom and right only, which the published networks do not.
    """
    kh, kw = kernel_size
    if kh == kw == 1:
        return inputs
    return ops.pad(inputs, [[0, 0], [kh // 2, kh // 2], [kw // 2, kw // 2], [0, 0]])


@keras.saving.register_keras_serializable("kmlp")
class ConvNorm(Layer):
    """Convolution with symmetric padding, norm, activation.

    The norm folds into the convolution at inference.

    Args:
        filters: output channels; ignored where `depthwise`.
        kernel_size: odd integer or pair.
        strides: integer.
        depthwise: one filter per channel.
        use_bias: bias of the convolution.
        norm: `"batch"` or `None`.
        activation: name of a Keras activation, or `None`.
        epsilon: of the norm.
        kernel_initializer: of the convolution.

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
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.activate = activation_function(activation)
        self.conv = conv2d(
            filters,
            self.kernel_size,
            strides=strides,
            depthwise=depthwise,
            use_bias=use_bias,
            kernel_initializer=self.kernel_initializer,
            name="conv",
            dtype=self.dtype_policy,
        )
        self.normalize = normalization(norm, epsilon=epsilon, dtype=self.dtype_policy)

    def build(self, input_shape):
        batch, *size, channels = input_shape
        if self.strides > 1:
            padding = (2 * (k // 2) for k in self.kernel_size)
            size = [None if s is None else s + p for s, p in zip(size, padding)]
        self.conv.build((batch, *size, channels))
        if self.normalize is not None:
            self.normalize.build(self.compute_output_shape(input_shape))

    def call(self, inputs, training=None):
        x = inputs if self.strides == 1 else pad_symmetric(inputs, self.kernel_size)
        return self.activate(apply_norm(self.normalize, self.conv(x), training))

    def compute_output_shape(self, input_shape):
        batch, *size, channels = input_shape
        size = [None if s is None else -(-s // self.strides) for s in size]
        return (batch, *size, channels if self.depthwise else self.filters)

    def multiply_adds(self, input_shape):
        _, height, width, _ = self.compute_output_shape(input_shape)
        return height * width * math.prod(self.conv.kernel.shape)

    def merged(self):
        """The norm folded into a biased convolution."""
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
class NormDepthwiseConv(Layer):
    """Layer norm, then a depthwise convolution without bias: ConvMLP's connection.

    At inference the norm's scale folds into the kernel. Its shift does not: at
    the zero-padded border it would reach in from outside the map.

    Args:
        kernel_size: odd integer.
        norm_scale: whether the norm has its learned scale.
        epsilon: of the norm.
        kernel_initializer: of the convolution.

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
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.normalize = normalization(
            "layer", epsilon=epsilon, scale=norm_scale, dtype=self.dtype_policy
        )
        self.conv = conv2d(
            None,
            self.kernel_size,
            depthwise=True,
            use_bias=False,
            kernel_initializer=self.kernel_initializer,
            name="conv",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        self.normalize.build(input_shape)
        self.conv.build(input_shape)

    def call(self, inputs):
        return self.conv(self.normalize(inputs))

    def multiply_adds(self, input_shape):
        return input_shape[1] * input_shape[2] * math.prod(self.conv.kernel.shape)

    def merged(self):
        """The norm's scale folded into the kernel."""
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
