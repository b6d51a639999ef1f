"""Swin Transformer: attention in shifted windows.

Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo: Swin Transformer: Hierarchical Vision
Transformer using Shifted Windows, 2021.
"""

from typing import Any

import keras

from kmlp.layers.channel_mlp import ChannelMLP
from kmlp.layers.initializers import FAN_IN_UNIFORM, NORMAL
from kmlp.layers.layer import drop_path, drop_path_rates
from kmlp.layers.patch_embed import PatchEmbed, PatchMerging
from kmlp.layers.window_attention import WindowAttention
from kmlp.models.vision_mlp import VisionMLP, check_stages, image_input
from kmlp.typing import Activation, DType, Shape, Sizes, Tensor

EPSILON = 1e-5
HEAD = {"norm": "layer", "epsilon": EPSILON, "kernel_initializer": NORMAL}


@keras.saving.register_keras_serializable("kmlp")
class SwinTransformer(VisionMLP):
    """Swin Transformer (defaults: Swin-T).

    Args:
        num_classes: Classes of the head; 0: pooled features without a classifier.
        input_shape: Shape `(H, W, C)`: any sizes, `None` for unknown ones. Maps that
            patches or windows do not divide are padded with zeros at the bottom and
            right.
        patch_size: Side of the patches.
        width: Channels of the first stage; they double from stage to stage.
        depths: Blocks per stage, any number of stages.
        heads: Heads of the attention, per stage.
        window_size: Positions along each side of a window. Every other block shifts
            its windows by half of that.
        mlp_ratio: Hidden channels per channel.
        include_top: Whether the head is included; else the output is the last
            stage's map.
        drop_path_rate: Stochastic depth at the last block, rising from 0.
        head_activation: Activation of the head; `None` gives logits.
        name: Name of the model.
        dtype: Dtype policy, which every layer follows.

    Raises:
        InputError: If stages or heads do not fit.

    Reference: Sect. 3.1, 3.3.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        input_shape: Shape = (224, 224, 3),
        *,
        patch_size: int = 4,
        width: int = 96,
        depths: Sizes = (2, 2, 6, 2),
        heads: Sizes = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4,
        include_top: bool = True,
        drop_path_rate: float = 0.2,
        head_activation: Activation = None,
        name: str | None = "swin",
        dtype: DType = None,
    ):
        check_stages(depths=depths, heads=heads)
        inputs = image_input(input_shape, fixed=False)
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        pyramid = {}
        x = PatchEmbed(
            width,
            patch_size,
            norm="layer",
            epsilon=EPSILON,
            padding="same",
            kernel_initializer=FAN_IN_UNIFORM,
            name="patch_embed",
            dtype=dtype,
        )(inputs)
        for stage, depth in enumerate(depths):
            if stage:
                x = patch_merging(name=f"downsample{stage - 1}", dtype=dtype)(x)
            for block in range(depth):
                x = swin_block(
                    x,
                    heads=heads[stage],
                    window_size=window_size,
                    shift=window_size // 2 if block % 2 else 0,
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
            head=HEAD,
            name=name,
            dtype=dtype,
        )


def patch_merging(*, name: str, dtype: Any) -> keras.Layer:
    """Return the layer that leads from one stage into the next, twice as wide."""
    return PatchMerging(
        epsilon=EPSILON, kernel_initializer=NORMAL, name=name, dtype=dtype
    )


def swin_block(
    x: Tensor,
    *,
    heads: int,
    window_size: int,
    shift: int,
    mlp_ratio: float,
    drop_path_rate: float,
    name: str,
    dtype: Any = None,
) -> Tensor:
    """Apply attention in windows and a channel MLP, each on a residual branch.

    Args:
        x: Map.
        heads: Heads of `WindowAttention`.
        window_size: Window of `WindowAttention`.
        shift: Shift of `WindowAttention`.
        mlp_ratio: Ratio of `ChannelMLP`.
        drop_path_rate: Stochastic depth of both branches.
        name: Beginning of the layers' names.
        dtype: Dtype policy of the layers.

    Returns:
        A map of the same shape.

    Reference: Swin Transformer Sect. 3.2, Eq. 3.
    """
    attention = WindowAttention(
        heads,
        window_size,
        shift=shift,
        epsilon=EPSILON,
        kernel_initializer=NORMAL,
        name=f"{name}_attention",
        dtype=dtype,
    )
    return transformer_block(
        x,
        attention,
        mlp_ratio=mlp_ratio,
        drop_path_rate=drop_path_rate,
        name=name,
        dtype=dtype,
    )


def transformer_block(
    x: Tensor,
    attention: keras.Layer,
    *,
    mlp_ratio: float,
    drop_path_rate: float,
    name: str,
    dtype: Any = None,
) -> Tensor:
    """Apply attention, then a channel MLP, each with its norm, on residual branches.

    Args:
        x: Map.
        attention: Layer from maps to maps, with its norm in it.
        mlp_ratio: As in `swin_block`, like the arguments after it.
    """
    mlp = ChannelMLP(
        mlp_ratio,
        norm="layer",
        epsilon=EPSILON,
        kernel_initializer=NORMAL,
        name=f"{name}_mlp",
        dtype=dtype,
    )
    for part, layer in enumerate((attention, mlp), start=1):
        y = drop_path(drop_path_rate, name=f"{name}_drop{part}", dtype=dtype)(layer(x))
        x = keras.layers.Add(name=f"{name}_add{part}", dtype=dtype)([x, y])
    return x
