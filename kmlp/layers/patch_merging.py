"""Swin's patch merging: neighbours side by side, normed, mapped to fewer channels."""

import math

import keras
from keras import ops

from kmlp import algebra
from kmlp.layers.layer import Layer, assign, copy, host, initializer
from kmlp.layers.norms import affine_terms, normalization


@keras.saving.register_keras_serializable("kmlp")
class PatchMerging(Layer):
    """Halves a map: 2×2 neighbours as channels, layer norm, Dense without bias.

    At inference the norm's scale and shift are part of the Dense, which then has a
    bias; the standardisation stays.

    Args:
        filters: output channels; `None`: twice the input's.
        norm_affine: whether the norm has its learned scale and shift.
        use_bias: bias of the Dense.
        epsilon: of the norm.
        kernel_initializer: of the Dense, whose rows are ordered (row, column,
            channel), as the norm's channels are.

    Shapes: `(N, H, W, C)` to `(N, ceil(H / 2), ceil(W / 2), filters)`; odd maps are
    padded with zeros at the bottom and right.

    References: Swin Transformer (Liu et al., 2021), Sect. 3.1; ConvMLP Sect. 3.4, where
    it is the baseline's downsampling.
    """

    arguments = (
        "filters",
        "norm_affine",
        "use_bias",
        "epsilon",
        "kernel_initializer",
    )

    def __init__(
        self,
        filters=None,
        *,
        norm_affine=True,
        use_bias=False,
        epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.norm_affine = norm_affine
        self.use_bias = use_bias
        self.epsilon = epsilon
        self.kernel_initializer = initializer(kernel_initializer)
        self.normalize = normalization(
            "layer",
            epsilon=epsilon,
            scale=norm_affine,
            center=norm_affine,
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        width = 4 * input_shape[-1]
        self.normalize.build((None, width))
        self.dense = keras.layers.Dense(
            self.filters or width // 2,
            use_bias=self.use_bias,
            kernel_initializer=initializer(self.kernel_initializer),
            name="dense",
            dtype=self.dtype_policy,
        )
        self.dense.build((None, width))

    def call(self, inputs):
        x = self._pad(inputs)
        batch, height, width, channels = ops.shape(x)
        if None not in inputs.shape[1:]:
            batch = -1  # no shape to compute in the graph
        # (N, 2h, 2w, C) -> (N, h, w, 2, 2, C) -> (N·h·w, 4C)
        x = ops.reshape(x, (batch, height // 2, 2, width // 2, 2 * channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4))
        x = self.normalize(ops.reshape(x, (-1, 4 * channels)))
        x = self.dense(x)
        return ops.reshape(x, (batch, height // 2, width // 2, self.dense.units))

    def _pad(self, inputs):
        _, height, width, _ = ops.shape(inputs)
        bottom, right = height % 2, width % 2
        if isinstance(bottom, int) and isinstance(right, int) and not bottom + right:
            return inputs
        return ops.pad(inputs, [[0, 0], [0, bottom], [0, right], [0, 0]])

    def compute_output_shape(self, input_shape):
        batch, *size, channels = input_shape
        size = [None if s is None else -(-s // 2) for s in size]
        return (batch, *size, self.filters or 2 * channels)

    def multiply_adds(self, input_shape):
        _, rows, columns, _ = self.compute_output_shape(input_shape)
        return rows * columns * math.prod(self.dense.kernel.shape)

    def merged(self):
        """The norm's scale and shift in the Dense."""
        if not self.norm_affine:
            return copy(self)
        twin = copy(self, norm_affine=False, use_bias=True)
        kernel, bias = algebra.fold_before(
            host(self.dense.kernel),
            host(self.dense.bias),
            *affine_terms(self.normalize),
        )
        assign(twin.dense, kernel=kernel, bias=bias)
        return twin
