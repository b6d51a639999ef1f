"""ResMLP: feedforward networks for image classification.

Touvron et al.: ResMLP: Feedforward networks for image classification with
data-efficient training, 2021.
"""

import keras

from kmlp.layers import (
    ChannelMLP,
    CrossPatch,
    PatchEmbed,
    drop_path,
)
from kmlp.models.base import VisionMLP, partitioned_input

INITIALIZER = keras.initializers.TruncatedNormal(stddev=0.02)

VARIANTS = {
    "resmlp_s12": {},
    "resmlp_s24": {"depth": 24, "layer_scale": 1e-5},
    "resmlp_s36": {"depth": 36, "layer_scale": 1e-6},
    "resmlp_b24": {"depth": 24, "width": 768, "patch_size": 8, "layer_scale": 1e-6},
    # The scaled-down ResMLP of RepMLPNet's Table 4.
    "resmlp_12_cifar": {
        "width": 256,
        "patch_size": 2,
        "input_shape": (32, 32, 3),
        "num_classes": 100,
    },
}


@keras.saving.register_keras_serializable("kmlp")
class ResMLP(VisionMLP):
    """ResMLP (defaults: ResMLP-S12).

    Args:
        num_classes: classes of the head; 0: pooled features without a classifier.
        input_shape: `(H, W, C)`; known sizes, any with `block_size`, else multiples
            of the patch.
        patch_size: of the patch embedding.
        width: channels.
        depth: blocks.
        mlp_ratio: hidden channels per channel in the cross-channel sublayer.
        layer_scale: initial value of the learned scales of both sublayers.
        local_kernels: sizes of local branches parallel to the patch-mixing FC;
            they merge into it.
        block_size: `(h, w)` of the patch grid that the FC covers; `None`: the
            grid of `input_shape`. Other inputs are partitioned; what the blocks do
            not tile is padded with zeros.
        norm: `"affine"` (Aff), `"layer"` or `"batch"`.
        include_top: whether the head is included; else the output is the map.
        drop_path_rate: stochastic depth, the same at every block.
        head_activation: activation of the head; `None` gives logits.
        name, dtype: of the model; every layer follows the dtype policy.

    Raises:
        ValueError: sizes that do not fit.

    Reference: Sect. 2, Eqs. 2-3.
    """

    def __init__(
        self,
        num_classes=1000,
        input_shape=(224, 224, 3),
        *,
        patch_size=16,
        width=384,
        depth=12,
        mlp_ratio=4,
        layer_scale=0.1,
        local_kernels=(),
        block_size=None,
        norm="affine",
        include_top=True,
        drop_path_rate=0.0,
        head_activation=None,
        name="resmlp",
        dtype=None,
    ):
        inputs, (grid,), padding = partitioned_input(
            input_shape, patch_size, block_size, 1
        )
        x = PatchEmbed(
            width,
            patch_size,
            padding=padding,
            kernel_initializer=INITIALIZER,
            name="patch_embed",
            dtype=dtype,
        )(inputs)
        add = keras.layers.Add
        for block in range(depth):
            prefix = f"block{block}"
            y = CrossPatch(
                norm=norm,
                layer_scale=layer_scale,
                block_size=block_size,
                local_kernels=local_kernels,
                kernel_initializer=INITIALIZER,
                name=f"{prefix}_cross_patch",
                dtype=dtype,
            )(x)
            y = drop_path(drop_path_rate, name=f"{prefix}_drop1", dtype=dtype)(y)
            x = add(name=f"{prefix}_add1", dtype=dtype)([x, y])
            y = ChannelMLP(
                mlp_ratio,
                norm=norm,
                layer_scale=layer_scale,
                kernel_initializer=INITIALIZER,
                name=f"{prefix}_cross_channel",
                dtype=dtype,
            )(x)
            y = drop_path(drop_path_rate, name=f"{prefix}_drop2", dtype=dtype)(y)
            x = add(name=f"{prefix}_add2", dtype=dtype)([x, y])
        pyramid = {f"P{patch_size.bit_length() - 1}": x}
        super().__init__(
            inputs,
            x,
            pyramid=pyramid,
            head={"norm": norm, "kernel_initializer": INITIALIZER},
            num_classes=num_classes,
            include_top=include_top,
            drop_path_rate=drop_path_rate,
            head_activation=head_activation,
            name=name,
            dtype=dtype,
            config={
                "patch_size": patch_size,
                "width": width,
                "depth": depth,
                "mlp_ratio": mlp_ratio,
                "layer_scale": layer_scale,
                "local_kernels": tuple(local_kernels),
                "block_size": None if block_size is None else grid,
                "norm": norm,
            },
        )
