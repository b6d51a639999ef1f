"""A small convolution over the patches, in place of an FC."""

import math

import keras
import numpy as np

from kmlp.errors import InputError
from kmlp.layers.conv_norm import conv2d
from kmlp.layers.layer import Layer, assign, copy, host, pair
from kmlp.layers.norms import (
    affine_terms,
    apply_norm,
    normalization,
    remaining_norm,
)


@keras.saving.register_keras_serializable("kmlp")
class ConvMixing(Layer):
    """Norm, convolution, per-channel scale: ResMLP's communication by convolution.

    Padding is zero behind the norm, so the norm's shift does not reach in from outside
    the map. The inference form keeps the convolution, with the norm's scale and the
    scale after it in its kernel, and `shift`, what shift and bias come to at every
    position. The residual addition is the caller's.

    Args:
        kernel_size: odd integer or pair.
        depthwise: one filter per channel.
        norm: `"affine"`, `"layer"`, `"batch"`, `"l2"` or `None`.
        norm_affine: whether a layer or l2 norm has its learned scale and shift.
        layer_scale: initial value of the scale, or `None`.
        folded: the inference form.
        epsilon: of the norm.
        kernel_initializer: of the convolution.

    Shapes: `(N, H, W, C)` in and out, sizes known.

    Raises:
        InputError: unknown sizes.

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
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.normalize = normalization(
            norm,
            epsilon=epsilon,
            scale=norm_affine,
            center=norm_affine,
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        _, height, width, channels = input_shape
        if height is None or width is None:
            raise InputError(
                f"{self.name}: what the norm's shift comes to depends on the distance "
                "to the border; give input_shape a known height and width. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        if self.normalize is not None:
            self.normalize.build(input_shape)
        self.conv = conv2d(
            channels,
            self.kernel_size,
            depthwise=self.depthwise,
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
        elif self.layer_scale is not None:
            self.gamma = self.add_weight(
                name="gamma",
                shape=(channels,),
                initializer=keras.initializers.Constant(self.layer_scale),
            )

    def call(self, inputs, training=None):
        x = self.conv(apply_norm(self.normalize, inputs, training))
        if self.folded:
            return x + self.shift
        return x if self.gamma is None else x * self.gamma

    def multiply_adds(self, input_shape):
        return input_shape[1] * input_shape[2] * math.prod(self.conv.kernel.shape)

    def merged(self):
        """Scales in the kernel; the norm's shift and the bias in `shift`."""
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
        """What the kernel makes of a map that is constant in each channel."""
        taps = [
            _within(size, count) for size, count in zip(self._size, kernel.shape[:2])
        ]
        equation = "ai,bj,ijcd,c->abc" if self.depthwise else "ai,bj,ijcd,c->abd"
        return np.einsum(equation, *taps, kernel, values, optimize=True)


def _within(length, taps):
    """`(length, taps)`: 1 where a tap at a position falls within the map."""
    read = np.arange(length)[:, None] + np.arange(taps) - taps // 2
    return ((read >= 0) & (read < length)).astype("float64")
