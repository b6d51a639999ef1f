"""A linear map over positions, shared by the channels."""

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
from kmlp.layers.norms import affine_terms, apply_norm, normalization
from kmlp.layers.partition import Partition


@keras.saving.register_keras_serializable("kmlp")
class PositionLinear(Layer):
    """Positions to positions, for every channel alike: a Dense on transposed tokens.

    Args:
        units: output positions.
        use_bias: a bias per output position.
        kernel_initializer: of the kernel.

    Attributes:
        input_grid, output_grid: `(h, w)` of the map whose positions inputs and outputs
            are; `None`: they are no map's. The owner sets them.
        covers_map: whether that is the whole map, whatever blocks others cut it into.

    Shapes: `(N, L, C)` to `(N, units, C)`; the kernel is `(units, L)`, output
    position first.
    """

    input_grid = output_grid = None
    covers_map = False

    def __init__(
        self, units, *, use_bias=True, kernel_initializer="glorot_uniform", **kwargs
    ):
        super().__init__(**kwargs)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.units, input_shape[1]),
            initializer=self.kernel_initializer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer="zeros"
            )

    def call(self, inputs):
        # The kernel on the left spares both transpositions.
        x = ops.matmul(self.kernel, inputs)
        return x if self.bias is None else x + self.bias[:, None]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.units, input_shape[2])

    def multiply_adds(self, input_shape):
        _, length, channels = input_shape
        return self.units * length * channels

    def resize_from(self, source, method="linear", steps=(None, None)):
        """Takes the weights of a layer alike for another grid.

        They are interpolated along what is a map's: `W Down` over inputs, which keeps
        sums, `Up W` and `Up b` over outputs. All else is as it was.

        Args:
            source: a built `PositionLinear` over maps alike.
            method, steps: as in `kmlp.algebra.resize_map`.
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
        hidden: positions between the FCs.
        norm: `"layer"`, `"batch"`, `"affine"`, `"l2"` or `None`.
        activation: name of a Keras activation; GELU is exact.
        layer_scale: initial value of the scale, or `None`.
        block_size: `(h, w)` of the patch grid that the FCs cover; `None`: the map.
            Maps that the blocks do not tile are padded and cropped.
        epsilon: of the norm.
        kernel_initializer: of the FC kernels.

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
        self.block_size = None if block_size is None else pair(block_size, "block_size")
        self.activate = activation_function(activation)
        self.normalize = normalization(norm, epsilon=epsilon, dtype=self.dtype_policy)

    def build(self, input_shape):
        self.partition = Partition(
            input_shape, self.block_size, columns_as_channels=True, name=self.name
        )
        if self.normalize is not None:
            self.normalize.build(input_shape)
        length, channels = self.partition.length, self.partition.block_shape[-1]
        self.fc1 = self._linear(self.hidden, "fc1", (None, length, channels))
        self.fc2 = self._linear(length, "fc2", (None, self.hidden, channels))
        self.fc1.input_grid = self.fc2.output_grid = self.partition.block_size
        self.gamma = None
        if self.layer_scale is not None:
            self.gamma = self.add_weight(
                name="gamma",
                shape=(input_shape[-1],),
                initializer=keras.initializers.Constant(self.layer_scale),
            )

    def _linear(self, units, name, shape):
        linear = PositionLinear(
            units,
            kernel_initializer=self.kernel_initializer,
            name=name,
            dtype=self.dtype_policy,
        )
        linear.build(shape)
        return linear

    def call(self, inputs, training=None):
        x = apply_norm(self.normalize, inputs, training)
        length, channels = self.partition.length, self.partition.block_shape[-1]
        # (N, H, W, C) -> (B, h, w, C) -> (B, hw, C)
        x = ops.reshape(self.partition.split(x), (-1, length, channels))
        x = self.fc2(self.activate(self.fc1(x)))
        x = ops.reshape(x, (-1, length, channels, 1))
        x = self.partition.join(self.partition.valid(x))
        return x if self.gamma is None else x * self.gamma

    def multiply_adds(self, input_shape):
        # What runs are whole blocks, padding included.
        positions = math.prod(self.partition.tiles) * self.partition.length
        return 2 * positions * self.hidden * input_shape[-1]

    def merged(self):
        """BatchNorm as its scale and shift."""
        if self.norm != "batch":
            return copy(self)
        twin = copy(self, norm="affine")
        scale, shift = affine_terms(self.normalize)
        assign(twin.normalize, alpha=scale, beta=shift)
        for new, old in ((twin.fc1, self.fc1), (twin.fc2, self.fc2)):
            assign(new, kernel=host(old.kernel), bias=host(old.bias))
        assign(twin, gamma=host(self.gamma))
        return twin
