"""Patch embedding as a Dense layer over cut-out patches."""

import math

import keras
from keras import ops

from kmlp import algebra
from kmlp.errors import InputError
from kmlp.layers.layer import (
    Layer,
    activation_function,
    assign,
    copy,
    host,
    initializer,
    pair,
)
from kmlp.layers.norms import affine_terms, apply_norm, normalization


@keras.saving.register_keras_serializable("kmlp")
class PatchEmbed(Layer):
    """Cuts non-overlapping patches, maps each by one Dense; norm and activation.

    A stride-p p×p convolution is exactly this linear map; as Dense nothing in an
    exported network needs a convolution. BatchNorm folds into the Dense at
    inference, a layer norm stays (its output feeds the residual stream).

    Args:
        filters: output channels.
        patch_size: integer or pair; both the patch and its stride.
        use_bias: bias of the Dense.
        norm: `"batch"`, `"layer"` or `None`.
        activation: name of a Keras activation, or `None`.
        epsilon: of the norm.
        padding: `"valid"` demands maps that the patch divides; `"same"` pads
            with zeros at the bottom and right.
        kernel_initializer: of the Dense, whose kernel has rows ordered (patch
            row, patch column, channel).

    Shapes: `(N, H, W, C)` to `(N, ceil(H / p), ceil(W / p), filters)`.

    Raises:
        InputError: `padding="valid"` and the patch does not divide the map.
    """

    def __init__(
        self,
        filters,
        patch_size,
        *,
        use_bias=True,
        norm=None,
        activation=None,
        epsilon=1e-5,
        padding="valid",
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if padding not in ("valid", "same"):
            raise InputError(
                f"`padding` must be 'valid' or 'same'. Received: padding={padding!r}"
            )
        self.patch_size = pair(patch_size, "patch_size")
        self.activate = activation_function(activation)
        self.dense = keras.layers.Dense(
            filters,
            use_bias=use_bias,
            kernel_initializer=self.kernel_initializer,
            name="dense",
            dtype=self.dtype_policy,
        )
        self.normalize = normalization(norm, epsilon=epsilon, dtype=self.dtype_policy)

    def build(self, input_shape):
        self._check(input_shape)
        ph, pw = self.patch_size
        self.dense.build((None, ph * pw * input_shape[-1]))
        if self.normalize is not None:
            self.normalize.build((None, self.filters))

    def _check(self, input_shape):
        for size, patch in zip(input_shape[1:3], self.patch_size):
            if self.padding == "valid" and size is not None and size % patch:
                raise InputError(
                    f"{self.name}: height and width must be multiples of "
                    f"{self.patch_size}; pass padding='same' to pad them. "
                    f"Received: input_shape={tuple(input_shape)}"
                )

    def call(self, inputs, training=None):
        ph, pw = self.patch_size
        x = self._pad(inputs)
        batch, height, width, channels = ops.shape(x)
        rows, columns = height // ph, width // pw
        # (N, h·p, w·p, C) -> (N, h, w, p, p, C) -> (N·h·w, p·p·C)
        if None not in inputs.shape[1:]:
            batch = -1  # no shape to compute in the graph
        x = ops.reshape(x, (batch, rows, ph, columns, pw * channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4))
        x = self.dense(ops.reshape(x, (-1, ph * pw * channels)))
        x = self.activate(apply_norm(self.normalize, x, training))
        return ops.reshape(x, (batch, rows, columns, self.filters))

    def _pad(self, inputs):
        if self.padding == "valid":
            return inputs
        _, height, width, _ = ops.shape(inputs)
        bottom, right = -height % self.patch_size[0], -width % self.patch_size[1]
        if isinstance(bottom, int) and isinstance(right, int) and not bottom + right:
            return inputs
        return ops.pad(inputs, [[0, 0], [0, bottom], [0, right], [0, 0]])

    def compute_output_shape(self, input_shape):
        batch, *size, _ = input_shape
        size = [
            None if s is None else -(-s // p) for s, p in zip(size, self.patch_size)
        ]
        return (batch, *size, self.filters)

    def multiply_adds(self, input_shape):
        _, rows, columns, filters = self.compute_output_shape(input_shape)
        return rows * columns * self.dense.kernel.shape[0] * filters

    def merged(self):
        """BatchNorm folded into the Dense."""
        if self.norm != "batch":
            return copy(self)
        twin = copy(self, norm=None, use_bias=True)
        kernel, bias = algebra.fold_after(
            host(self.dense.kernel),
            host(self.dense.bias),
            *affine_terms(self.normalize),
        )
        assign(twin.dense, kernel=kernel, bias=bias)
        return twin


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


@keras.saving.register_keras_serializable("kmlp")
class PositionEncoding(Layer):
    """Adds a learned vector per position, as ViT and CaiT do to their patches.

    Shapes: `(N, H, W, C)` in and out, sizes known.

    Raises:
        InputError: unknown sizes.

    Reference: ResMLP (Touvron et al., 2021), Appendix A, Position encoding.
    """

    # Positions are those of the image, whatever blocks other layers cut.
    covers_map = True

    def build(self, input_shape):
        if None in input_shape[1:]:
            raise InputError(
                f"{self.name}: positions are learned for one grid; give input_shape a "
                f"known height and width. Received: input_shape={tuple(input_shape)}"
            )
        self.encoding = self.add_weight(
            name="encoding",
            shape=tuple(input_shape[1:]),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )

    def call(self, inputs):
        return inputs + self.encoding

    def resize_from(self, source, method="linear", steps=(None, None)):
        """Takes the vectors of a layer for another grid, interpolated to this one's.

        Args:
            source: a built `PositionEncoding`.
            method, steps: as in `kmlp.algebra.resize_map`.
        """
        values = host(source.encoding)
        height, width, channels = self.encoding.shape
        resized = algebra.resize_map(
            values.reshape(-1, channels).T,
            values.shape[:2],
            (height, width),
            method,
            steps,
        )
        assign(self, encoding=resized.T.reshape(height, width, channels))
