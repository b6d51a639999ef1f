"""MS-MLP: mixing and shifting.

Zheng, He, Chen, Zhou: Mixing and Shifting: Exploiting Global and Local
Dependencies in Vision MLPs, 2022.
"""

from collections.abc import Sequence
from typing import Any

import keras

from kmlp.layers.channel_mlp import ChannelMLP
from kmlp.layers.initializers import FAN_IN_UNIFORM, NORMAL
from kmlp.layers.layer import drop_path, drop_path_rates
from kmlp.layers.mix_shift import MixShift
from kmlp.layers.patch_embed import PatchEmbed
from kmlp.models.vision_mlp import VisionMLP, check_stages, image_input
from kmlp.typing import Activation, DType, Shape, Sizes, Tensor

EPSILON = 1e-6

_REGIONS = ((1, 1, 3, 5, 7), (1, 3, 3, 5, 7), (1, 5, 5, 5, 7), (1, 7, 7, 7, 7))


@keras.saving.register_keras_serializable("kmlp")
class MSMLP(VisionMLP):
    """MS-MLP (defaults: MS-MLP-T).

    Args:
        num_classes: Classes of the head; 0: pooled features without a classifier.
        input_shape: Shape `(H, W, C)`: any sizes, `None` for unknown ones. Maps that a
            patch does not divide are padded with zeros at the bottom and right.
        width: Channels of the first stage; they double from stage to stage.
        depths: Blocks per stage, any number of stages.
        regions: Kernel sizes of the channel groups, per stage.
        shifts: Shift distances of the channel groups.
        order: Order of shift and mixing, `"shift_mix"` or `"mix_shift"`.
        mixing: Kind of mixing, `"depthwise"`, or `"full"`: convolutions over all
            channels of a group.
        projections: Whether each block maps its channels by a Dense without bias
            before mixing and shifting and by another one after it. The published
            blocks do not; those of Table 12 count as if they did.
        mlp_ratio: Hidden channels per channel.
        layer_scale: Initial value of the learned per-channel scale.
        patch_size: Side of the patches.
        include_top: Whether the head is included; else the output is the last
            stage's map.
        drop_path_rate: Stochastic depth at the last block, rising from 0.
        head_activation: Activation of the head; `None` gives logits.
        name: Name of the model.
        dtype: Dtype policy, which every layer follows.

    Raises:
        InputError: If stages or groups do not fit, or order or mixing is unknown.

    Reference: Sect. 3, Table 1; Tables 9, 12 and 13 for other regions, distances,
    stages and convolutions.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        input_shape: Shape = (224, 224, 3),
        *,
        width: int = 96,
        depths: Sizes = (3, 3, 9, 3),
        regions: Sequence[Sizes] = _REGIONS,
        shifts: Sizes = (-2, -1, 0, 1, 2),
        order: str = "shift_mix",
        mixing: str = "depthwise",
        projections: bool = False,
        mlp_ratio: float = 4,
        layer_scale: float | None = 1e-6,
        patch_size: int = 4,
        include_top: bool = True,
        drop_path_rate: float = 0.2,
        head_activation: Activation = None,
        name: str | None = "msmlp",
        dtype: DType = None,
    ):
        check_stages(depths=depths, regions=regions)
        inputs = image_input(input_shape, fixed=False)
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        pyramid = {}
        x = inputs
        for stage, depth in enumerate(depths):
            x = PatchEmbed(
                width * 2**stage,
                patch_size if stage == 0 else 2,
                norm="layer",
                epsilon=EPSILON,
                padding="same",
                kernel_initializer=FAN_IN_UNIFORM,
                name="patch_embed" if stage == 0 else f"downsample{stage - 1}",
                dtype=dtype,
            )(x)
            for block in range(depth):
                x = mix_shift_block(
                    x,
                    regions=regions[stage],
                    shifts=shifts,
                    order=order,
                    mixing=mixing,
                    projections=projections,
                    mlp_ratio=mlp_ratio,
                    layer_scale=layer_scale,
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
            head={
                "norm": "layer",
                "pool_first": True,
                "epsilon": EPSILON,
                "kernel_initializer": NORMAL,
            },
            name=name,
            dtype=dtype,
        )


def mix_shift_block(
    x: Tensor,
    *,
    regions: Sequence[int],
    shifts: Sequence[int],
    order: str,
    mixing: str = "depthwise",
    projections: bool = False,
    mlp_ratio: float,
    layer_scale: float | None,
    drop_path_rate: float,
    name: str,
    dtype: Any = None,
) -> Tensor:
    """Apply mixing and shifting, then a channel MLP, on one residual branch.

    Args:
        x: Map.
        regions: Kernel sizes of `MixShift`.
        shifts: Distances of `MixShift`.
        order: Order of `MixShift`.
        mixing: Convolutions of `MixShift`.
        projections: Whether there is a Dense on either side of it.
        mlp_ratio: Ratio of `ChannelMLP`.
        layer_scale: Scale of `ChannelMLP`.
        drop_path_rate: Stochastic depth of the branch.
        name: Beginning of the layers' names.
        dtype: Dtype policy of the layers.

    Returns:
        A map of the same shape.

    Reference: Sect. 3.2, 3.3.
    """
    y = x
    if projections:
        y = projection(y, name=f"{name}_project_in", dtype=dtype)
    y = MixShift(
        regions,
        shifts,
        order=order,
        mixing=mixing,
        kernel_initializer=FAN_IN_UNIFORM,
        name=f"{name}_mix_shift",
        dtype=dtype,
    )(y)
    if projections:
        y = projection(y, name=f"{name}_project_out", dtype=dtype)
    y = ChannelMLP(
        mlp_ratio,
        norm="layer",
        layer_scale=layer_scale,
        epsilon=EPSILON,
        kernel_initializer=NORMAL,
        name=f"{name}_mlp",
        dtype=dtype,
    )(y)
    y = drop_path(drop_path_rate, name=f"{name}_drop", dtype=dtype)(y)
    return keras.layers.Add(name=f"{name}_add", dtype=dtype)([x, y])


def projection(x: Tensor, *, name: str, dtype: Any) -> Tensor:
    """Apply a Dense without bias from channels to as many."""
    return keras.layers.Dense(
        x.shape[-1],
        use_bias=False,
        kernel_initializer=NORMAL.clone(),
        name=name,
        dtype=dtype,
    )(x)
