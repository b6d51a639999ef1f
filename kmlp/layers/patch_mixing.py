"""ResMLP's cross-patch sublayers: an FC or an MLP over the patches."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp import algebra
from kmlp.layers.initializers import start
from kmlp.layers.layer import (
    Layer,
    activation_function,
    assign,
    copy,
    host,
    optional_pair,
)
from kmlp.layers.norms import (
    affine_terms,
    apply_norm,
    build_norm,
    own_norm,
    remaining_norm,
    with_affine_norm,
)
from kmlp.layers.partition import Partition
from kmlp.layers.perceptrons import SetSharingLinear
from kmlp.typing import KnownShape, Shape, Tensor


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
        norm: Kind of norm, `"affine"` (Aff), `"batch"`, `"layer"`, `"l2"` or `None`.
        norm_affine: Whether a layer or l2 norm has its learned scale and shift.
        layer_scale: Initial value of gamma, or `None`.
        block_size: Size `(h, w)` of the patch grid the kernel covers; `None`: the map.
            Maps that the blocks do not tile are padded and cropped.
        local_kernels: Sizes of local branches beside the FC.
        folded: Whether this is the inference form: `scale` and `shift` instead of
            norm, bias and gamma.
        epsilon: Constant of the norms.
        kernel_initializer: Initializer of the FC kernel.

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
        self.block_size = optional_pair(block_size, "block_size")
        self.normalize = own_norm(self)
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

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        build_norm(self.normalize, input_shape)
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
        else:
            self.gamma = self._gamma(channels)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
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

    def multiply_adds(self, input_shape: KnownShape) -> int:
        return self.mix.multiply_adds(input_shape)

    def merged(self) -> Layer:
        """Return the layer with branches in the kernel, the rest in scale and shift."""
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
        """Return what the FC makes of ones, and its bias, wherever positions differ."""
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


@keras.saving.register_keras_serializable("kmlp")
class PositionLinear(Layer):
    """Positions to positions, for every channel alike: a Dense on transposed tokens.

    Args:
        units: Output positions.
        use_bias: Whether there is a bias per output position.
        kernel_initializer: Initializer of the kernel.

    Attributes:
        input_grid, output_grid: Size `(h, w)` of the map whose positions inputs and
            outputs are; `None`: they are no map's. The owner sets them.
        covers_map: Whether that is the whole map, whatever blocks others cut it into.

    Shapes: `(N, L, C)` to `(N, units, C)`; the kernel is `(units, L)`, output
    position first.
    """

    input_grid = output_grid = None
    covers_map = False

    def __init__(
        self, units, *, use_bias=True, kernel_initializer="glorot_uniform", **kwargs
    ):
        super().__init__(**kwargs)

    def build(self, input_shape: KnownShape) -> None:
        kernel, bias = start(self.kernel_initializer, input_shape[1])
        self.kernel = self.add_weight(
            name="kernel", shape=(self.units, input_shape[1]), initializer=kernel
        )
        self.bias = self._bias(self.units, start=bias)

    def call(self, inputs: Tensor) -> Tensor:
        # The kernel on the left spares both transpositions.
        x = ops.matmul(self.kernel, inputs)
        return x if self.bias is None else x + self.bias[:, None]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.units, input_shape[2])

    def multiply_adds(self, input_shape: KnownShape) -> int:
        _, length, channels = input_shape
        return self.units * length * channels

    def resize_from(
        self, source: Layer, method: str = "linear", steps: Any = (None, None)
    ) -> None:
        """Take over the weights of a layer alike for another grid.

        They are interpolated along what is a map's: `W Down` over inputs, which keeps
        sums, `Up W` and `Up b` over outputs. All else is as it was.

        Args:
            source: Built `PositionLinear` over maps alike.
            method, steps: Same as in `kmlp.algebra.resize_map`.
        """
        kernel, bias = host(source.kernel), host(source.bias)
        if self.input_grid is not None:
            way = (source.input_grid, self.input_grid, method, steps)
            kernel = algebra.resize_inputs(kernel, *way)
        if self.output_grid is not None:
            way = (source.output_grid, self.output_grid, method, steps)
            kernel = algebra.resize_map(kernel.T, *way).T
            bias = None if bias is None else algebra.resize_map(bias[None], *way)[0]
        assign(self, kernel=kernel, bias=bias)


@keras.saving.register_keras_serializable("kmlp")
class MixingMLP(Layer):
    """Norm, FC over the patches, activation, FC back to them, per-channel scale.

    Both FCs are shared by the channels; the residual addition is the caller's.

    At inference BatchNorm becomes its scale and shift. There they stay, as Aff's and
    those of the other norms do: per channel, they do not fit into a kernel over
    positions, and behind the first FC they would be a scale and a map of
    `hidden * C` numbers, which is more to keep and, from a hidden size of twice the
    patches on, more to compute. The scale after the second FC stays likewise.

    Args:
        hidden: Positions between the FCs.
        norm: Kind of norm, `"layer"`, `"batch"`, `"affine"`, `"l2"` or `None`.
        activation: Name of a Keras activation; GELU is exact.
        layer_scale: Initial value of the scale, or `None`.
        block_size: Size `(h, w)` of the patch grid that the FCs cover; `None`: the map.
            Maps that the blocks do not tile are padded and cropped.
        epsilon: Constant of the norm.
        kernel_initializer: Initializer of the FC kernels.

    Shapes: `(N, H, W, C)` in and out; the kernels are `(hidden, h*w)` and
    `(h*w, hidden)`. On another grid the hidden positions stay as many.

    References: ResMLP (Touvron et al., 2021), Appendix A; MLP-Mixer (Tolstikhin et
    al., 2021), Eq. 1.
    """

    def __init__(
        self,
        hidden,
        *,
        norm="layer",
        activation="gelu",
        layer_scale=None,
        block_size=None,
        epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.block_size = optional_pair(block_size, "block_size")
        self.activate = activation_function(activation)
        self.normalize = own_norm(self)

    def build(self, input_shape: KnownShape) -> None:
        self.partition = Partition(
            input_shape, self.block_size, columns_as_channels=True, name=self.name
        )
        build_norm(self.normalize, input_shape)
        length, channels = self.partition.length, self.partition.block_shape[-1]
        self.fc1 = self._linear(self.hidden, "fc1", (None, length, channels))
        self.fc2 = self._linear(length, "fc2", (None, self.hidden, channels))
        self.fc1.input_grid = self.fc2.output_grid = self.partition.block_size
        self.gamma = self._gamma(input_shape[-1])

    def _linear(self, units, name, shape):
        linear = PositionLinear(
            units,
            kernel_initializer=self.kernel_initializer,
            name=name,
            dtype=self.dtype_policy,
        )
        linear.build(shape)
        return linear

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = apply_norm(self.normalize, inputs, training)
        length, channels = self.partition.length, self.partition.block_shape[-1]
        # (N, H, W, C) -> (B, h, w, C) -> (B, hw, C)
        x = ops.reshape(self.partition.split(x), (-1, length, channels))
        x = self.fc2(self.activate(self.fc1(x)))
        x = ops.reshape(x, (-1, length, channels, 1))
        x = self.partition.join(self.partition.valid(x))
        return x if self.gamma is None else x * self.gamma

    def multiply_adds(self, input_shape: KnownShape) -> int:
        # Whole blocks are computed, padding included.
        positions = math.prod(self.partition.tiles) * self.partition.length
        return 2 * positions * self.hidden * input_shape[-1]

    def merged(self) -> Layer:
        """Return the layer with BatchNorm as its scale and shift."""
        if self.norm != "batch":
            return copy(self)
        twin = with_affine_norm(self)
        for new, old in ((twin.fc1, self.fc1), (twin.fc2, self.fc2)):
            new.set_weights(old.get_weights())
        assign(twin, gamma=host(self.gamma))
        return twin
