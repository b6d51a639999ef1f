"""ResMLP's cross-patch sublayer."""

import keras
import numpy as np
from keras import ops

from kmlp.layers.layer import Layer, assign, copy, host, pair
from kmlp.layers.norms import (
    affine_terms,
    apply_norm,
    normalization,
    remaining_norm,
)
from kmlp.layers.set_sharing import SetSharingLinear


@keras.saving.register_keras_serializable("kmlp")
class CrossPatch(Layer):
    """Norm, one FC over the patches shared by all channels, per-channel scale.

    Aff before and the scale after the FC are per channel, the FC is shared by
    the channels: together they are not one N×N matrix. The inference form keeps
    `scale * (A x) + shift` with `scale = gamma * alpha` per channel and
    `shift = gamma * (beta * A 1 + b)` per position and channel, the local
    branches having gone into `A`. The padding of a map that the blocks do not tile
    is zero behind the norm and carries no `beta`: the ones of `A 1` stand where the
    map is, and `shift` then covers the map instead of a block. The residual addition
    is the caller's.

    Args:
        norm: `"affine"` (Aff), `"batch"`, `"layer"`, `"l2"` or `None`.
        norm_affine: whether a layer or l2 norm has its learned scale and shift.
        layer_scale: initial value of gamma, or `None`.
        block_size: `(h, w)` of the patch grid the kernel covers; `None`: the map.
            Maps that the blocks do not tile are padded and cropped.
        local_kernels: sizes of local branches beside the FC.
        folded: the inference form: `scale` and `shift` instead of norm, bias
            and gamma.
        epsilon: of the norms.
        kernel_initializer: of the FC kernel.

    Shapes: `(N, H, W, C)` in and out.

    References: ResMLP Eq. 2 (Touvron et al., 2021); RepMLPNet Sect. 5.2 for the
    local branches.
    """

    def __init__(
        self,
        *,
        norm="affine",
        norm_affine=True,
        layer_scale=None,
        block_size=None,
        local_kernels=(),
        folded=False,
        epsilon=1e-5,
        kernel_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.block_size = None if block_size is None else pair(block_size, "block_size")
        self.normalize = normalization(
            norm,
            epsilon=epsilon,
            scale=norm_affine,
            center=norm_affine,
            dtype=self.dtype_policy,
        )
        self.mix = SetSharingLinear(
            block_size=block_size,
            local_kernels=local_kernels,
            use_bias=not folded,
            kernel_initializer=self.kernel_initializer,
            epsilon=epsilon,
            name="mix",
            dtype=self.dtype_policy,
        )
        self.local_kernels = self.mix.local_kernels

    def build(self, input_shape):
        channels = input_shape[-1]
        if self.normalize is not None:
            self.normalize.build(input_shape)
        self.mix.build(input_shape)
        partition = self.mix.partition
        cover = partition.map_shape[:2] if partition.padded else partition.block_size
        self.gamma = self.scale = self.shift = None
        if self.folded:
            self.scale = self.add_weight(
                name="scale", shape=(channels,), initializer="ones"
            )
            self.shift = self.add_weight(
                name="shift", shape=(*cover, channels), initializer="zeros"
            )
        elif self.layer_scale is not None:
            self.gamma = self.add_weight(
                name="gamma",
                shape=(channels,),
                initializer=keras.initializers.Constant(self.layer_scale),
            )

    def call(self, inputs, training=None):
        x = apply_norm(self.normalize, inputs, training)
        x = self.mix(x, training=training)
        if self.folded:
            return self._add_shift(x * self.scale)
        return x if self.gamma is None else x * self.gamma

    def _add_shift(self, x):
        h, w = self.shift.shape[:2]
        _, height, width, channels = x.shape
        if (height, width) == (h, w):
            return x + self.shift
        # (N, H, W, C) -> (N, H/h, h, W/w, w·C): broadcasting repeats the block.
        blocks = ops.reshape(x, (-1, height // h, h, width // w, w * channels))
        shift = ops.reshape(self.shift, (h, 1, w * channels))
        return ops.reshape(blocks + shift, (-1, height, width, channels))

    def multiply_adds(self, input_shape):
        return self.mix.multiply_adds(input_shape)

    def merged(self):
        """Branches in the kernel; norm, bias and gamma in `scale` and `shift`."""
        if self.folded:
            return copy(self)
        kernel, bias = self.mix.equivalent_kernel(host)
        gamma = 1.0 if self.gamma is None else host(self.gamma)
        alpha, beta = affine_terms(self.normalize) or (1.0, 0.0)
        ones, bias = self._constant(kernel[0], bias[0])
        shift = gamma * (beta * ones[..., None] + bias[..., None])
        twin = copy(
            self,
            **remaining_norm(self.norm),
            layer_scale=None,
            local_kernels=(),
            folded=True,
        )
        assign(twin.mix, kernel=kernel)
        assign(twin, scale=gamma * alpha, shift=shift)
        return twin

    def _constant(self, kernel, bias):
        """What FC and bias make of a map of ones and of zeros, where they differ."""
        partition = self.mix.partition
        block = partition.block_size
        bias = bias.reshape(block)
        if not partition.padded:
            return kernel.sum(axis=1).reshape(block), bias
        (rows, columns), (h, w) = partition.tiles, block
        height, width, _ = partition.map_shape
        ones = np.zeros((rows * h, columns * w))
        ones[:height, :width] = 1
        # (H, W) -> (H/h, h, W/w, w), and back
        ones = np.einsum(
            "abij,risj->rasb",
            kernel.reshape(*block, *block),
            ones.reshape(rows, h, columns, w),
            optimize=True,
        )
        maps = ones.reshape(rows * h, columns * w), np.tile(bias, partition.tiles)
        return tuple(m[:height, :width] for m in maps)
