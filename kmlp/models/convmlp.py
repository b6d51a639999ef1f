"""ConvMLP: hierarchical convolutional MLPs.

Li, Hassani, Walton, Shi: ConvMLP: Hierarchical Convolutional MLPs for Vision,
2021.
"""

from collections.abc import Sequence
from typing import Any

import keras

from kmlp.errors import InputError, check_choice
from kmlp.layers.channel_mlp import ChannelMLP
from kmlp.layers.conv_norm import ConvNorm, NormDepthwiseConv
from kmlp.layers.initializers import FAN_IN_UNIFORM, HE_NORMAL, NORMAL
from kmlp.layers.layer import drop_path, drop_path_rates
from kmlp.layers.patch_embed import PatchMerging
from kmlp.models.vision_mlp import VisionMLP, check_stages, image_input
from kmlp.typing import Activation, DType, Shape, Sizes, Tensor

CONV_STAGES = ("bottleneck", "plain", "mlp")
DOWNSAMPLINGS = ("conv", "merge")


@keras.saving.register_keras_serializable("kmlp")
class ConvMLP(VisionMLP):
    """ConvMLP (defaults: ConvMLP-S).

    Args:
        num_classes: Classes of the head; 0: pooled features without a classifier.
        input_shape: Shape `(H, W, C)`: any sizes, `None` for unknown ones.
        stem_width: Channels of tokenizer and convolution stage.
        conv_blocks: Blocks of the convolution stage; of a plain one at least one.
        widths: Channels per Conv-MLP stage; the first is also the width inside
            the convolution stage's bottlenecks.
        depths: Blocks per Conv-MLP stage.
        mlp_ratios: Hidden channels per channel, per Conv-MLP stage.
        conv_stage: Blocks of the convolution stage, `"bottleneck"`: residual 1×1, 3×3,
            1×1 convolutions; `"plain"`: 3×3 convolutions, the last one to the next
            width, and a max-pool in place of the downsampling; `"mlp"`: pairs of
            channel MLPs, of the first stage's ratio, and no convolution.
        downsample: Downsampling between stages. `"conv"`: 3×3 convolutions of stride 2;
            `"merge"`: patch merging.
        depthwise: Whether there is a depthwise convolution between the two MLPs of a
            Conv-MLP block.
        include_top: Whether the head is included; else the output is the last
            stage's map.
        drop_path_rate: Stochastic depth, rising from 0 within each stage.
        head_activation: Activation of the head; `None` gives logits.
        name: Name of the model.
        dtype: Dtype policy, which every layer follows.

    Raises:
        InputError: If stages do not fit, or a kind of one is unknown.

    Reference: Sect. 3, Table 1; Table 2 for the kinds of stages.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        input_shape: Shape = (224, 224, 3),
        *,
        stem_width: int = 64,
        conv_blocks: int = 2,
        widths: Sizes = (128, 256, 512),
        depths: Sizes = (2, 4, 2),
        mlp_ratios: Sequence[float] = (2, 2, 2),
        conv_stage: str = "bottleneck",
        downsample: str = "conv",
        depthwise: bool = True,
        include_top: bool = True,
        drop_path_rate: float = 0.1,
        head_activation: Activation = None,
        name: str | None = "convmlp",
        dtype: DType = None,
    ):
        check_stages(widths=widths, depths=depths, mlp_ratios=mlp_ratios)
        check_choice(CONV_STAGES, conv_stage=conv_stage)
        check_choice(DOWNSAMPLINGS, downsample=downsample)
        inputs = image_input(input_shape, fixed=False)
        x = tokenizer(inputs, stem_width, dtype=dtype)
        pyramid = {"P2": x}
        if conv_stage == "plain":
            x = plain_stage(x, widths[0], conv_blocks, dtype=dtype)
        elif conv_stage == "bottleneck":
            for block in range(conv_blocks):
                x = bottleneck(x, widths[0], name=f"conv_block{block}", dtype=dtype)
        else:
            for block, rate in enumerate(drop_path_rates(drop_path_rate, conv_blocks)):
                x = conv_mlp_block(
                    x,
                    mlp_ratio=mlp_ratios[0],
                    depthwise=False,
                    drop_path_rate=rate,
                    name=f"conv_block{block}",
                    dtype=dtype,
                )
        if conv_stage != "plain":
            x = halve(x, widths[0], downsample, name="conv_downsample", dtype=dtype)
        pyramid["P3"] = x
        for stage, depth in enumerate(depths):
            for block, rate in enumerate(drop_path_rates(drop_path_rate, depth)):
                x = conv_mlp_block(
                    x,
                    mlp_ratio=mlp_ratios[stage],
                    depthwise=depthwise,
                    drop_path_rate=rate,
                    name=f"stage{stage}_block{block}",
                    dtype=dtype,
                )
            if stage + 1 < len(depths):
                x = halve(
                    x,
                    widths[stage + 1],
                    downsample,
                    name=f"stage{stage}_downsample",
                    dtype=dtype,
                )
                pyramid[f"P{4 + stage}"] = x
        # The last level is taken after its blocks, the others where they begin.
        pyramid[f"P{2 + len(depths)}"] = x
        super().__init__(
            inputs,
            x,
            pyramid=pyramid,
            head={"norm": "layer", "kernel_initializer": NORMAL},
            name=name,
            dtype=dtype,
        )


def conv_norm_relu(
    x: Tensor,
    filters: int,
    kernel_size: int,
    *,
    strides: int = 1,
    name: str,
    dtype: Any,
) -> Tensor:
    """Apply a convolution without bias, BatchNorm and ReLU."""
    return ConvNorm(
        filters,
        kernel_size,
        strides=strides,
        activation="relu",
        kernel_initializer=HE_NORMAL,
        name=name,
        dtype=dtype,
    )(x)


def tokenizer(x: Tensor, width: int, *, dtype: Any) -> Tensor:
    """Apply three 3×3 convolutions and a max-pool, stride 4 in all (Sect. 3.2)."""
    for index, (filters, strides) in enumerate(
        ((width // 2, 2), (width // 2, 1), (width, 1))
    ):
        x = conv_norm_relu(
            x, filters, 3, strides=strides, name=f"tokenizer_conv{index}", dtype=dtype
        )
    return max_pool(x, name="tokenizer", dtype=dtype)


def max_pool(x: Tensor, *, name: str, dtype: Any) -> Tensor:
    """Halve a map behind a ReLU by a 3×3 max-pool."""
    # Zeros at the border never exceed the maximum there.
    x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad", dtype=dtype)(x)
    return keras.layers.MaxPooling2D(3, 2, name=f"{name}_pool", dtype=dtype)(x)


def plain_stage(x: Tensor, width: int, blocks: int, *, dtype: Any) -> Tensor:
    """Apply 3×3 convolutions, the last one to `width`, and a max-pool (Table 2)."""
    if blocks < 1:
        raise InputError(
            "`conv_stage='plain'` widens in the last of its convolutions and needs "
            f"one. Received: conv_blocks={blocks}"
        )
    for block in range(blocks):
        filters = width if block == blocks - 1 else x.shape[-1]
        x = conv_norm_relu(x, filters, 3, name=f"conv_block{block}", dtype=dtype)
    return max_pool(x, name="conv", dtype=dtype)


def bottleneck(x: Tensor, hidden: int, *, name: str, dtype: Any) -> Tensor:
    """Apply residual 1×1, 3×3, 1×1 convolutions (Sect. 3.3)."""
    y = conv_norm_relu(x, hidden, 1, name=f"{name}_conv0", dtype=dtype)
    y = conv_norm_relu(y, hidden, 3, name=f"{name}_conv1", dtype=dtype)
    y = conv_norm_relu(y, x.shape[-1], 1, name=f"{name}_conv2", dtype=dtype)
    return keras.layers.Add(name=f"{name}_add", dtype=dtype)([x, y])


def halve(x: Tensor, filters: int, kind: str, *, name: str, dtype: Any) -> Tensor:
    """Merge patches, or apply a stride-2 3×3 convolution with bias (Sect. 3.4)."""
    if kind == "merge":
        merge = PatchMerging(filters, kernel_initializer=NORMAL, name=name, dtype=dtype)
        return merge(x)
    return ConvNorm(
        filters,
        3,
        strides=2,
        use_bias=True,
        norm=None,
        kernel_initializer=HE_NORMAL,
        bias_initializer=FAN_IN_UNIFORM,
        name=name,
        dtype=dtype,
    )(x)


def conv_mlp_block(
    x: Tensor,
    *,
    mlp_ratio: float,
    depthwise: bool,
    drop_path_rate: float,
    name: str,
    dtype: Any,
) -> Tensor:
    """Apply channel MLP, depthwise convolution, channel MLP (Sect. 3.4, Fig. 3).

    Only the MLPs are residual; without `depthwise` there is nothing between them.
    """
    channels = x.shape[-1]
    for part in (1, 2):
        y = ChannelMLP(
            mlp_ratio,
            norm="layer",
            kernel_initializer=NORMAL,
            name=f"{name}_mlp{part}",
            dtype=dtype,
        )(x)
        y = drop_path(drop_path_rate, name=f"{name}_drop{part}", dtype=dtype)(y)
        x = keras.layers.Add(name=f"{name}_add{part}", dtype=dtype)([x, y])
        if part == 1 and depthwise:
            x = NormDepthwiseConv(
                # He's fan-out in PyTorch's sense, 9 C for a depthwise 3×3 kernel.
                kernel_initializer=keras.initializers.RandomNormal(
                    stddev=(2 / (9 * channels)) ** 0.5
                ),
                name=f"{name}_connect",
                dtype=dtype,
            )(x)
    return x
