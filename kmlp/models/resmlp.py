"""ResMLP: feedforward networks for image classification.

Touvron et al.: ResMLP: Feedforward networks for image classification with
data-efficient training, 2021.
"""

import functools
import math

import keras

from kmlp.errors import InputError, check_choice
from kmlp.layers.channel_mlp import ChannelMLP
from kmlp.layers.conv_norm import ConvMixing
from kmlp.layers.head import ClassMLP
from kmlp.layers.initializers import FAN_IN_UNIFORM, NORMAL
from kmlp.layers.layer import drop_path
from kmlp.layers.patch_embed import PatchEmbed, PositionEncoding
from kmlp.layers.patch_mixing import CrossPatch, MixingMLP
from kmlp.models.vision_mlp import VisionMLP, partitioned_input
from kmlp.typing import Activation, DType, Shape, Sizes

# Allowed values of these arguments.
ALLOWED = {
    "mixing": ("linear", "depthwise_conv3", "conv3", "mlp"),
    "pooling": ("average", "class_mlp"),
    "activation": ("gelu", "silu", "hard_swish", "relu"),
    "position_encoding": (None, "learned"),
}


@keras.saving.register_keras_serializable("kmlp")
class ResMLP(VisionMLP):
    """ResMLP (defaults: ResMLP-S12).

    Args:
        num_classes: Classes of the head; 0: pooled features without a classifier.
        input_shape: Shape `(H, W, C)`: known sizes, any with `block_size`, else
            multiples of the patch.
        patch_size: Side of the patches.
        width: Channels.
        depth: Number of blocks.
        mlp_ratio: Hidden channels per channel in the cross-channel sublayer.
        layer_scale: Initial value of the learned scales of both sublayers; `None`:
            they have none.
        local_kernels: Sizes of local branches parallel to the patch-mixing FC;
            they merge into it.
        block_size: Size `(h, w)` of the patch grid that the FC or the mixing MLP
            covers; `None`: the grid of `input_shape`. Other inputs are partitioned;
            what the blocks do not tile is padded with zeros. Convolutions, positions
            and class layers go over the whole map.
        norm: Kind of norm, `"affine"` (Aff), `"layer"`, `"batch"` or `"l2"`.
        mixing: Layer that mixes the patches: `"linear"`, `"mlp"`, or a 3×3 convolution,
            `"conv3"` or `"depthwise_conv3"`.
        mixing_ratio: Hidden positions of a mixing MLP per patch that it covers, of
            which the whole number is taken.
        mixing_width: Hidden positions outright; `None`: by `mixing_ratio`. The model
            has as attribute, and in its configuration, how many there are.
        pooling: Pooling, `"average"` or `"class_mlp"`, two class layers behind the map.
        activation: Activation of all MLPs: `"gelu"` (exact), `"silu"`, `"hard_swish"`
            or `"relu"`.
        position_encoding: Position encoding. `"learned"`: added to the patches; or
            `None`.
        epsilon: Constant of the norms.
        include_top: Whether the head is included; else the output is the map.
        drop_path_rate: Stochastic depth, the same at every block.
        head_activation: Activation of the head; `None` gives logits.
        name: Name of the model.
        dtype: Dtype policy, which every layer follows.

    Raises:
        InputError: If sizes do not fit, or arguments do not go together.

    Reference: Sect. 2, Eqs. 2-3; variants of Sect. 3.5 and Appendix A.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        input_shape: Shape = (224, 224, 3),
        *,
        patch_size: int = 16,
        width: int = 384,
        depth: int = 12,
        mlp_ratio: float = 4,
        layer_scale: float | None = 0.1,
        local_kernels: Sizes = (),
        block_size: Sizes | None = None,
        norm: str = "affine",
        mixing: str = "linear",
        mixing_ratio: float = 4,
        mixing_width: int | None = None,
        pooling: str = "average",
        activation: Activation = "gelu",
        position_encoding: str | None = None,
        epsilon: float = 1e-5,
        include_top: bool = True,
        drop_path_rate: float = 0.0,
        head_activation: Activation = None,
        name: str | None = "resmlp",
        dtype: DType = None,
    ):
        for argument, value in (
            ("mixing", mixing),
            ("pooling", pooling),
            ("activation", activation),
            ("position_encoding", position_encoding),
        ):
            check_choice(ALLOWED[argument], **{argument: value})
        inputs, (grid,), padding = partitioned_input(
            input_shape, patch_size, block_size, 1
        )
        mixing_width = _hidden(mixing, mixing_ratio, mixing_width, grid)
        shared = {
            "norm": norm,
            "layer_scale": layer_scale,
            "epsilon": epsilon,
            "kernel_initializer": NORMAL,
            "dtype": dtype,
        }
        cross_patch = _mixing(
            mixing,
            hidden=mixing_width,
            activation=activation,
            block_size=block_size,
            local_kernels=local_kernels,
        )
        x = PatchEmbed(
            width,
            patch_size,
            padding=padding,
            kernel_initializer=FAN_IN_UNIFORM,
            name="patch_embed",
            dtype=dtype,
        )(inputs)
        if position_encoding == "learned":
            x = PositionEncoding(name="position_encoding", dtype=dtype)(x)
        add = keras.layers.Add
        for block in range(depth):
            prefix = f"block{block}"
            y = cross_patch(name=f"{prefix}_cross_patch", **shared)(x)
            y = drop_path(drop_path_rate, name=f"{prefix}_drop1", dtype=dtype)(y)
            x = add(name=f"{prefix}_add1", dtype=dtype)([x, y])
            y = ChannelMLP(
                mlp_ratio,
                activation=activation,
                name=f"{prefix}_cross_channel",
                **shared,
            )(x)
            y = drop_path(drop_path_rate, name=f"{prefix}_drop2", dtype=dtype)(y)
            x = add(name=f"{prefix}_add2", dtype=dtype)([x, y])
        pyramid = {f"P{patch_size.bit_length() - 1}": x}
        if include_top and pooling == "class_mlp":
            x = ClassMLP(
                mlp_ratio=mlp_ratio, activation=activation, name="class_mlp", **shared
            )(x)
        super().__init__(
            inputs,
            x,
            pyramid=pyramid,
            head={
                "norm": norm,
                "epsilon": epsilon,
                "kernel_initializer": NORMAL,
            },
            name=name,
            dtype=dtype,
            block_size=None if block_size is None else grid,
            mixing_width=mixing_width,
        )


def _hidden(mixing, ratio, width, grid):
    """Return the mixing MLP's hidden positions over a grid, `None` without an MLP."""
    if not isinstance(ratio, int | float) or not ratio > 0:
        raise InputError(
            "`mixing_ratio` is the mixing MLP's hidden positions per patch, above 0. "
            f"Received: mixing_ratio={ratio!r}"
        )
    if width is None:
        return max(int(ratio * math.prod(grid)), 1) if mixing == "mlp" else None
    if mixing != "mlp" or not isinstance(width, int) or width < 1:
        raise InputError(
            "`mixing_width` is a positive number of hidden positions of mixing='mlp'. "
            f"Received: mixing_width={width!r} with mixing={mixing!r}"
        )
    return width


def _mixing(mixing, *, hidden, activation, block_size, local_kernels):
    """Return the cross-patch sublayer's class with the arguments of its own."""
    if local_kernels and mixing != "linear":
        raise InputError(
            "Local branches merge into a linear map over the patches: leave "
            "`local_kernels` empty, or take mixing='linear'. "
            f"Received: local_kernels={tuple(local_kernels)} with mixing={mixing!r}"
        )
    if mixing == "linear":
        return functools.partial(
            CrossPatch, block_size=block_size, local_kernels=local_kernels
        )
    if mixing == "mlp":
        return functools.partial(
            MixingMLP, hidden, activation=activation, block_size=block_size
        )
    return functools.partial(ConvMixing, 3, depthwise=mixing == "depthwise_conv3")
