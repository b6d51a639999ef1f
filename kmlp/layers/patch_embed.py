"""Patch embedding as a Dense layer over cut-out patches."""

from typing import Any

import keras
from keras import ops

from kmlp import algebra
from kmlp.errors import InputError, check_choice
from kmlp.layers.initializers import NORMAL, initializer
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
    folded,
    own_norm,
)
from kmlp.layers.partition import cut
from kmlp.typing import KnownShape, Shape, Tensor


def patches_of(
    inputs: Tensor, size: tuple[int, int], *, pad: bool
) -> tuple[Tensor, tuple]:
    """Cut non-overlapping patches and flatten them, one a row.

    Args:
        inputs: Map `(N, H, W, C)`.
        size: Size `(h, w)` of a patch.
        pad: Whether the map may need zeros at the bottom and right.

    Returns:
        Patches `(N·rows·columns, h·w·C)` and `(N, rows, columns)`, N being -1 where the
        rest is known, so that a graph computes no shapes.
    """
    _, height, width, _ = ops.shape(inputs)
    known = inputs.shape[1:3]
    if pad and (None in known or any(k % s for k, s in zip(known, size))):
        missing = [-height % size[0], -width % size[1]]
        inputs = ops.pad(inputs, [[0, 0], *([0, m] for m in missing), [0, 0]])
    batch, height, width, channels = ops.shape(inputs)
    tiles = height // size[0], width // size[1]
    if None not in inputs.shape[1:]:
        batch = -1
    patches = cut(inputs, tiles, size, batch)
    return ops.reshape(patches, (-1, size[0] * size[1] * channels)), (batch, *tiles)


@keras.saving.register_keras_serializable("kmlp")
class PatchEmbed(Layer):
    """Cuts non-overlapping patches, maps each by one Dense; norm and activation.

    A stride-p p×p convolution is exactly this linear map; as Dense nothing in an
    exported network needs a convolution. BatchNorm folds into the Dense at
    inference, a layer norm stays (its output feeds the residual stream).

    Args:
        filters: Output channels.
        patch_size: Integer or pair; both the patch and its stride.
        use_bias: Whether there is a bias of the Dense.
        norm: Kind of norm, `"batch"`, `"layer"` or `None`.
        activation: Name of a Keras activation, or `None`.
        epsilon: Constant of the norm.
        padding: Padding: `"valid"` demands maps that the patch divides; `"same"` pads
            with zeros at the bottom and right.
        kernel_initializer: Initializer of the Dense, whose kernel has rows ordered
            (patch row, patch column, channel).

    Shapes: `(N, H, W, C)` to `(N, ceil(H / p), ceil(W / p), filters)`.

    Raises:
        InputError: If `padding="valid"` and the patch does not divide the map.
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
        check_choice(("valid", "same"), padding=padding)
        self.patch_size = pair(patch_size, "patch_size")
        self.activate = activation_function(activation)

    def build(self, input_shape: Shape) -> None:
        self._check(input_shape)
        ph, pw = self.patch_size
        width = ph * pw * input_shape[-1]
        self.dense = self._dense(self.filters, "dense", width, use_bias=self.use_bias)
        self.normalize = own_norm(self)
        build_norm(self.normalize, (None, self.filters))

    def _check(self, input_shape):
        for size, patch in zip(input_shape[1:3], self.patch_size):
            if self.padding == "valid" and size is not None and size % patch:
                raise InputError(
                    f"{self.name}: height and width must be multiples of "
                    f"{self.patch_size}; pass padding='same' to pad them. "
                    f"Received: input_shape={tuple(input_shape)}"
                )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x, grid = patches_of(inputs, self.patch_size, pad=self.padding == "same")
        x = self.activate(apply_norm(self.normalize, self.dense(x), training))
        return ops.reshape(x, (*grid, self.filters))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *size, _ = input_shape
        return (batch, *strided(size, self.patch_size), self.filters)

    def multiply_adds(self, input_shape: KnownShape) -> int:
        return kernel_products(
            self.compute_output_shape(input_shape), self.dense.kernel
        )

    def merged(self) -> Layer:
        """Return the layer with BatchNorm folded into the Dense."""
        if self.norm != "batch":
            return copy(self)
        twin = copy(self, norm=None, use_bias=True)
        assign(twin.dense, **folded(self.dense, after=affine_terms(self.normalize)))
        return twin


@keras.saving.register_keras_serializable("kmlp")
class PatchMerging(Layer):
    """Halves a map: 2×2 neighbours as channels, layer norm, Dense without bias.

    At inference the norm's scale and shift are part of the Dense, which then has a
    bias; the standardisation stays.

    Args:
        filters: Output channels; `None`: twice the input's.
        norm_affine: Whether the norm has its learned scale and shift.
        use_bias: Whether there is a bias of the Dense.
        epsilon: Constant of the norm.
        kernel_initializer: Initializer of the Dense, whose rows are ordered (row,
            column, channel), as the norm's channels are.

    Shapes: `(N, H, W, C)` to `(N, ceil(H / 2), ceil(W / 2), filters)`; odd maps are
    padded with zeros at the bottom and right.

    References: Swin Transformer (Liu et al., 2021), Sect. 3.1; ConvMLP Sect. 3.4, where
    it is the baseline's downsampling.
    """

    norm = "layer"

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
        self.normalize = own_norm(self)

    def build(self, input_shape: KnownShape) -> None:
        width = 4 * input_shape[-1]
        self.normalize.build((None, width))
        units = self.filters or width // 2
        self.dense = self._dense(units, "dense", width, use_bias=self.use_bias)

    def call(self, inputs: Tensor) -> Tensor:
        x, grid = patches_of(inputs, (2, 2), pad=True)
        x = self.dense(self.normalize(x))
        return ops.reshape(x, (*grid, self.dense.units))

    def compute_output_shape(self, input_shape: KnownShape) -> Shape:
        batch, *size, channels = input_shape
        return (batch, *strided(size, (2, 2)), self.filters or 2 * channels)

    def multiply_adds(self, input_shape: KnownShape) -> int:
        return kernel_products(
            self.compute_output_shape(input_shape), self.dense.kernel
        )

    def merged(self) -> Layer:
        """Return the layer with the norm's scale and shift in the Dense."""
        if not self.norm_affine:
            return copy(self)
        twin = copy(self, norm_affine=False, use_bias=True)
        assign(twin.dense, **folded(self.dense, before=affine_terms(self.normalize)))
        return twin


@keras.saving.register_keras_serializable("kmlp")
class PositionEncoding(Layer):
    """Adds a learned vector per position, as ViT and CaiT do to their patches.

    Shapes: `(N, H, W, C)` in and out, sizes known.

    Raises:
        InputError: If sizes are unknown.

    Reference: ResMLP (Touvron et al., 2021), Appendix A, Position encoding.
    """

    # Positions are those of the image, whatever blocks other layers cut.
    covers_map = True

    def build(self, input_shape: Shape) -> None:
        if None in input_shape[1:]:
            raise InputError(
                f"{self.name}: positions are learned for one grid; give input_shape a "
                f"known height and width. Received: input_shape={tuple(input_shape)}"
            )
        self.encoding = self.add_weight(
            name="encoding",
            shape=tuple(input_shape[1:]),
            initializer=initializer(NORMAL),
        )

    def call(self, inputs: Tensor) -> Tensor:
        return inputs + self.encoding

    def resize_from(
        self, source: Layer, method: str = "linear", steps: Any = (None, None)
    ) -> None:
        """Take over the vectors of a layer for another grid, interpolated to this one.

        Args:
            source: Built `PositionEncoding`.
            method, steps: Same as in `kmlp.algebra.resize_map`.
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
