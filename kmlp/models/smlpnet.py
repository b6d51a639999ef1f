"""sMLPNet: sparse MLPs along rows and columns.

Tang, Zhao, Wang, Luo, Xie, Zeng: Sparse MLP for Image Recognition: Is
Self-Attention Really Necessary?, AAAI 2022.
"""

import keras

from kmlp.layers import (
    ChannelMLP,
    ConvNorm,
    NormActivation,
    PatchEmbed,
    SparseMLP,
    drop_path,
    drop_path_rates,
)
from kmlp.models.base import VisionMLP, partitioned_input

DENSE_INITIALIZER = keras.initializers.TruncatedNormal(stddev=0.02)
# PyTorch's default for convolutions; its fan of a depthwise 3×3 kernel is 9.
CONV_INITIALIZER = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
DEPTHWISE_INITIALIZER = keras.initializers.RandomUniform(-1 / 3, 1 / 3)

VARIANTS = {
    "smlpnet_t": {},
    "smlpnet_t_a2": {"mlp_ratio": 2},
    "smlpnet_s": {"width": 96, "depths": (2, 10, 24, 2), "drop_path_rate": 0.2},
    "smlpnet_b": {"width": 112, "depths": (2, 10, 24, 2), "drop_path_rate": 0.3},
}


@keras.saving.register_keras_serializable("kmlp")
class SMLPNet(VisionMLP):
    """sMLPNet (defaults: sMLPNet-T; `mlp_ratio=2` is the paper's T*).

    Args:
        num_classes: classes of the head; 0: pooled features without a classifier.
        input_shape: `(H, W, C)`; known sizes, any with `block_size`, else multiples
            of the patch and of every halving.
        width: channels of the first stage; they double from stage to stage.
        depths: blocks per stage.
        mlp_ratio: hidden channels per channel in the FFN.
        patch_size: of the patch embedding.
        block_size: `(h, w)` of the first-stage token grid that the axis FCs
            cover, halved from stage to stage; `None`: the grid of `input_shape`.
            Other inputs are partitioned into strips, the last ones padded with
            zeros.
        local_kernels: sizes of one-dimensional local branches beside the axis
            FCs; they merge into them.
        include_top: whether the head is included; else the output is the last
            stage's map.
        drop_path_rate: stochastic depth at the last block, rising from 0.
        head_activation: activation of the head; `None` gives logits.
        name, dtype: of the model; every layer follows the dtype policy.

    Raises:
        ValueError: sizes that do not fit.

    Reference: Sect. 3, Table 1.
    """

    def __init__(
        self,
        num_classes=1000,
        input_shape=(224, 224, 3),
        *,
        width=80,
        depths=(2, 8, 14, 2),
        mlp_ratio=3,
        patch_size=4,
        block_size=None,
        local_kernels=(),
        include_top=True,
        drop_path_rate=0.0,
        head_activation=None,
        name="smlpnet",
        dtype=None,
    ):
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
                kernel_initializer=CONV_INITIALIZER,
                name="patch_embed" if stage == 0 else f"downsample{stage - 1}",
                dtype=dtype,
            )(x)
            for block in range(depth):
                x = smlp_block(
                    x,
                    block_size=blocks[stage],
                    local_kernels=local_kernels,
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
            head={"norm": "batch", "kernel_initializer": DENSE_INITIALIZER},
            num_classes=num_classes,
            include_top=include_top,
            drop_path_rate=drop_path_rate,
            head_activation=head_activation,
            name=name,
            dtype=dtype,
            config={
                "width": width,
                "depths": tuple(depths),
                "mlp_ratio": mlp_ratio,
                "patch_size": patch_size,
                "block_size": None if block_size is None else blocks[0],
                "local_kernels": tuple(local_kernels),
            },
        )


def smlp_block(x, *, block_size, local_kernels, mlp_ratio, drop_path_rate, name, dtype):
    """Token mixing (depthwise convolution, sparse MLP), then FFN (Fig. 2, 3)."""
    add = keras.layers.Add
    y = NormActivation(name=f"{name}_norm", dtype=dtype)(x)
    # BN and GELU behind the convolution are the sparse MLP's pre-activation.
    y = ConvNorm(
        kernel_size=3,
        depthwise=True,
        activation="gelu",
        kernel_initializer=DEPTHWISE_INITIALIZER,
        name=f"{name}_depthwise",
        dtype=dtype,
    )(y)
    y = SparseMLP(
        block_size=block_size,
        local_kernels=local_kernels,
        kernel_initializer=CONV_INITIALIZER,
        name=f"{name}_sparse_mlp",
        dtype=dtype,
    )(y)
    y = drop_path(drop_path_rate, name=f"{name}_drop1", dtype=dtype)(y)
    x = add(name=f"{name}_add1", dtype=dtype)([x, y])
    y = ChannelMLP(
        mlp_ratio,
        norm="layer",
        kernel_initializer=DENSE_INITIALIZER,
        name=f"{name}_ffn",
        dtype=dtype,
    )(x)
    y = drop_path(drop_path_rate, name=f"{name}_drop2", dtype=dtype)(y)
    return add(name=f"{name}_add2", dtype=dtype)([x, y])
