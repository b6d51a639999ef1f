"""sMLPNet: sparse MLPs along rows and columns.

Tang, Zhao, Wang, Luo, Xie, Zeng: Sparse MLP for Image Recognition: Is
Self-Attention Really Necessary?, AAAI 2022.
"""

from collections.abc import Sequence
from typing import Any

import keras

from kmlp.errors import InputError, check_choice
from kmlp.layers.channel_mlp import ChannelMLP
from kmlp.layers.conv_norm import ConvNorm
from kmlp.layers.initializers import FAN_IN_UNIFORM
from kmlp.layers.layer import drop_path, drop_path_rates
from kmlp.layers.norms import NormActivation
from kmlp.layers.patch_embed import PatchEmbed
from kmlp.layers.perceptrons import SetSharingLinear
from kmlp.layers.sparse_mlp import SparseMLP
from kmlp.models.vision_mlp import (
    VisionMLP,
    check_stages,
    partitioned_input,
)
from kmlp.typing import Activation, DType, Shape, Sizes, Tensor

# Layers that mix the tokens of a stage globally.
GLOBAL_MIXINGS = (True, False, "depthwise", "positions")


@keras.saving.register_keras_serializable("kmlp")
class SMLPNet(VisionMLP):
    """sMLPNet (defaults: sMLPNet-T; `mlp_ratio=2` is the paper's T*).

    Args:
        num_classes: Classes of the head; 0: pooled features without a classifier.
        input_shape: Shape `(H, W, C)`: known sizes, any with `block_size`, else
            multiples of the patch and of every halving.
        width: Channels of the first stage; they double from stage to stage.
        depths: Blocks per stage.
        mlp_ratio: Hidden channels per channel in the FFN.
        patch_size: Side of the patches.
        block_size: Size `(h, w)` of the first-stage token grid that the axis FCs cover,
            halved from stage to stage; `None`: the grid of `input_shape`. Other inputs
            are partitioned into strips, the last ones padded with zeros.
        local_kernels: Sizes of one-dimensional local branches beside the axis
            FCs; they merge into them.
        local_mixing: Whether there is a depthwise convolution, with the norm and the
            activation before it.
        global_mixing: Layer behind the local mixing and a norm and activation of its
            own, one value or one per stage. `True`: the sparse MLP; `"depthwise"`:
            another depthwise convolution (the stages without a mark in Table 2);
            `"positions"`: an FC over all positions, GELU, another FC (Table 5);
            `False`: nothing.
        fusion: Fusion of the sparse MLP's paths: `"concat"` and a Dense, `"sum"` or
            `"weighted_sum"`.
        axes: Arrangement of the sparse MLP's axes: `"parallel"`, or `"sequential"`:
            along the width, then along the height.
        identity: Whether the input itself is among the sparse MLP's paths.
        include_top: Whether the head is included; else the output is the last
            stage's map.
        drop_path_rate: Stochastic depth at the last block, rising from 0.
        head_activation: Activation of the head; `None` gives logits.
        name: Name of the model.
        dtype: Dtype policy, which every layer follows.

    Raises:
        InputError: If sizes or stages do not fit, a kind of mixing is unknown, or a
            stage has none.

    Reference: Sect. 3; Tables 1-5 for other mixings and fusions.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        input_shape: Shape = (224, 224, 3),
        *,
        width: int = 80,
        depths: Sizes = (2, 8, 14, 2),
        mlp_ratio: float = 3,
        patch_size: int = 4,
        block_size: Sizes | None = None,
        local_kernels: Sizes = (),
        local_mixing: bool = True,
        global_mixing: bool | str | Sequence[bool | str] = True,
        fusion: str = "concat",
        axes: str = "parallel",
        identity: bool = True,
        include_top: bool = True,
        drop_path_rate: float = 0.0,
        head_activation: Activation = None,
        name: str | None = "smlpnet",
        dtype: DType = None,
    ):
        mixings = mixing_per_stage(global_mixing, depths, local_mixing)
        inputs, blocks, padding = partitioned_input(
            input_shape, patch_size, block_size, len(depths)
        )
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        pyramid = {}
        x = inputs
        for stage, depth in enumerate(depths):
            x = PatchEmbed(
                width * 2**stage,
                patch_size if stage == 0 else 2,
                use_bias=False,
                padding=padding,
                kernel_initializer=FAN_IN_UNIFORM,
                name="patch_embed" if stage == 0 else f"downsample{stage - 1}",
                dtype=dtype,
            )(x)
            for block in range(depth):
                x = smlp_block(
                    x,
                    block_size=blocks[stage],
                    local_kernels=local_kernels,
                    local_mixing=local_mixing,
                    global_mixing=mixings[stage],
                    sparse_mlp={"fusion": fusion, "axes": axes, "identity": identity},
                    mlp_ratio=mlp_ratio,
                    drop_path_rate=next(rates),
                    name=f"stage{stage}_block{block}",
                    dtype=dtype,
                )
            stride = patch_size * 2**stage
            pyramid[f"P{stride.bit_length() - 1}"] = x
        super().__init__(
            inputs,
            x,
            pyramid=pyramid,
            head={"norm": "batch", "kernel_initializer": FAN_IN_UNIFORM},
            name=name,
            dtype=dtype,
            block_size=None if block_size is None else blocks[0],
            # One value where all stages agree, however it was given.
            global_mixing=mixings if len(set(mixings)) > 1 else mixings[0],
        )


def mixing_per_stage(
    global_mixing: Any, depths: Sequence[int], local_mixing: bool
) -> tuple:
    """Return `global_mixing` as a tuple with a value per stage.

    Raises:
        InputError: If a value is unknown, not one per stage, or leaves a stage unmixed.
    """
    if not isinstance(global_mixing, (list, tuple)):
        global_mixing = (global_mixing,) * len(depths)
    check_stages(depths=depths, global_mixing=global_mixing)
    for mixing in global_mixing:
        check_choice(GLOBAL_MIXINGS, global_mixing=mixing)
    if not local_mixing and False in global_mixing:
        raise InputError(
            "Tokens of every stage need local or global mixing. Received: "
            f"local_mixing={local_mixing}, global_mixing={tuple(global_mixing)}"
        )
    # Compare as spelt, since 1 equals True.
    return tuple(GLOBAL_MIXINGS[GLOBAL_MIXINGS.index(m)] for m in global_mixing)


def smlp_block(
    x: Tensor,
    *,
    block_size: tuple[int, int] | None,
    local_kernels: Sequence[Any],
    local_mixing: bool,
    global_mixing: Any,
    sparse_mlp: dict[str, Any],
    mlp_ratio: float,
    drop_path_rate: float,
    name: str,
    dtype: Any,
) -> Tensor:
    """Apply token mixing (depthwise convolution, sparse MLP), then FFN (Fig. 2, 3)."""
    add = keras.layers.Add
    y = NormActivation(name=f"{name}_norm", dtype=dtype)(x)
    if local_mixing:
        # BN and GELU behind the convolution are the global mixing's pre-activation.
        last = global_mixing is False
        y = depthwise_conv(y, activated=not last, name=f"{name}_depthwise", dtype=dtype)
    if global_mixing is True:
        y = SparseMLP(
            block_size=block_size,
            local_kernels=local_kernels,
            kernel_initializer=FAN_IN_UNIFORM,
            name=f"{name}_sparse_mlp",
            dtype=dtype,
            **sparse_mlp,
        )(y)
    elif global_mixing == "depthwise":
        y = depthwise_conv(y, activated=False, name=f"{name}_depthwise2", dtype=dtype)
    elif global_mixing == "positions":
        y = position_mlp(
            y,
            block_size=block_size,
            local_kernels=local_kernels,
            name=f"{name}_positions",
            dtype=dtype,
        )
    y = drop_path(drop_path_rate, name=f"{name}_drop1", dtype=dtype)(y)
    x = add(name=f"{name}_add1", dtype=dtype)([x, y])
    y = ChannelMLP(
        mlp_ratio,
        norm="layer",
        kernel_initializer=FAN_IN_UNIFORM,
        name=f"{name}_ffn",
        dtype=dtype,
    )(x)
    y = drop_path(drop_path_rate, name=f"{name}_drop2", dtype=dtype)(y)
    return add(name=f"{name}_add2", dtype=dtype)([x, y])


def depthwise_conv(x: Tensor, *, activated: bool, name: str, dtype: Any) -> Tensor:
    """Apply a depthwise 3×3 convolution, then BN and GELU where `activated`."""
    return ConvNorm(
        kernel_size=3,
        depthwise=True,
        norm="batch" if activated else None,
        activation="gelu" if activated else None,
        kernel_initializer=FAN_IN_UNIFORM,
        name=name,
        dtype=dtype,
    )(x)


def position_mlp(
    x: Tensor,
    *,
    block_size: tuple[int, int] | None,
    local_kernels: Sequence[Any],
    name: str,
    dtype: Any,
) -> Tensor:
    """Apply two FCs over all positions with GELU between them (Table 5)."""
    for part in (1, 2):
        x = SetSharingLinear(
            block_size=block_size,
            local_kernels=local_kernels,
            name=f"{name}{part}",
            dtype=dtype,
        )(x)
        if part == 1:
            x = NormActivation(norm=None, name=f"{name}_gelu", dtype=dtype)(x)
    return x
