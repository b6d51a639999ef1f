"""RepMLPNet: a hierarchical MLP with re-parameterised locality.

Ding, Chen, Zhang, Han, Ding: RepMLPNet: Hierarchical Vision MLP with
Re-parameterized Locality, CVPR 2022.
"""

from collections.abc import Sequence
from typing import Any

import keras

from kmlp.errors import check_choice
from kmlp.layers.channel_mlp import ChannelMLP
from kmlp.layers.conv_norm import ConvNorm
from kmlp.layers.initializers import FAN_IN_UNIFORM
from kmlp.layers.layer import drop_path, drop_path_rates
from kmlp.layers.norms import BatchNorm
from kmlp.layers.patch_embed import PatchEmbed
from kmlp.layers.perceptrons import GlobalPerceptron, SetSharingLinear
from kmlp.models.vision_mlp import (
    VisionMLP,
    check_stages,
    partitioned_input,
)
from kmlp.typing import Activation, DType, Shape, Sizes, Tensor

# Layers between stages, and the size of their kernels.
DOWNSAMPLINGS = {"patch": 2, "conv3": 3, "conv5": 5}


@keras.saving.register_keras_serializable("kmlp")
class RepMLPNet(VisionMLP):
    """RepMLPNet (defaults: RepMLPNet-T224).

    Args:
        num_classes: Classes of the head; 0: pooled features without a classifier.
        input_shape: Shape `(H, W, C)`: known sizes, any with `block_size`, else
            multiples of the patch and of every halving.
        depths: Blocks per stage.
        widths: Channels per stage.
        share_sets: Share-sets per stage; each divides its width.
        local_kernels: Kernel sizes of the Local Perceptron; `()` for none.
        patch_size: Side of the stem's patches.
        block_size: Size `(h, w)` of the first-stage token grid that the FC kernels
            cover, halved from stage to stage; `None`: the grid of `input_shape`. Other
            inputs are partitioned; what the blocks do not tile is padded with zeros, of
            which gate, pyramid and head see nothing.
        gate_reduction: Channels per hidden unit of the Global Perceptron.
        global_perceptron: Whether there is a Global Perceptron.
        mlp_ratio: Hidden channels per channel in the FFN.
        downsample: Downsampling between stages. `"patch"`: 2×2 embeddings; `"conv3"`,
            `"conv5"`: a 1×1 convolution to the next width, then a depthwise 3×3 or 5×5
            one of stride 2, by which blocks learn of one another: for dense prediction.
            The latter two stay convolutions when merged.
        locality_injected: Whether to build the form after Locality Injection, in which
            merged checkpoints circulate: FC kernels with a bias, neither norm nor Local
            Perceptron beside them (`local_kernels` is of no effect); the FFN keeps its
            norms. `kmlp.merge` goes further.
        include_top: Whether the head is included; else the output is the last
            stage's map.
        drop_path_rate: Stochastic depth at the last block.
        head_activation: Activation of the head; `None` gives logits.
        name: Name of the model.
        dtype: Dtype policy, which every layer follows.

    Raises:
        InputError: If sizes, stages, share-sets or the downsampling do not fit.

    Reference: Sect. 4, Table 1; Sect. 5.3 and Appendix B for dense prediction.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        input_shape: Shape = (224, 224, 3),
        *,
        depths: Sizes = (2, 2, 6, 2),
        widths: Sizes = (64, 128, 256, 512),
        share_sets: Sizes = (1, 4, 16, 128),
        local_kernels: Sizes = (1, 3),
        patch_size: int = 4,
        block_size: Sizes | None = None,
        gate_reduction: int = 4,
        global_perceptron: bool = True,
        mlp_ratio: float = 4,
        downsample: str = "patch",
        locality_injected: bool = False,
        include_top: bool = True,
        drop_path_rate: float = 0.0,
        head_activation: Activation = None,
        name: str | None = "repmlpnet",
        dtype: DType = None,
    ):
        check_stages(depths=depths, widths=widths, share_sets=share_sets)
        check_choice(DOWNSAMPLINGS, downsample=downsample)
        inputs, blocks, padding = partitioned_input(
            input_shape, patch_size, block_size, len(depths)
        )
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        pyramid = {}
        x = inputs
        for stage, depth in enumerate(depths):
            if stage == 0 or downsample == "patch":
                x = PatchEmbed(
                    widths[stage],
                    patch_size if stage == 0 else 2,
                    use_bias=False,
                    norm="batch",
                    activation="relu",
                    padding=padding,
                    kernel_initializer=FAN_IN_UNIFORM,
                    name="stem" if stage == 0 else f"embed{stage - 1}",
                    dtype=dtype,
                )(x)
            else:
                x = communicating_embedding(
                    x,
                    widths[stage],
                    DOWNSAMPLINGS[downsample],
                    name=f"embed{stage - 1}",
                    dtype=dtype,
                )
            for block in range(depth):
                x = repmlp_unit(
                    x,
                    share_sets=share_sets[stage],
                    block_size=blocks[stage],
                    local_kernels=local_kernels,
                    locality_injected=locality_injected,
                    gate_reduction=gate_reduction if global_perceptron else None,
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
        )


def communicating_embedding(
    x: Tensor, width: int, kernel_size: int, *, name: str, dtype: Any
) -> Tensor:
    """Embed a map at half the size, with outputs that see across blocks' edges.

    A k×k convolution of stride 2 decomposed into a 1×1 one that widens and a depthwise
    one (Appendix B, Fig. 5).
    """
    x = ConvNorm(
        width,
        1,
        norm=None,
        kernel_initializer=FAN_IN_UNIFORM,
        name=f"{name}_expand",
        dtype=dtype,
    )(x)
    return ConvNorm(
        None,
        kernel_size,
        strides=2,
        depthwise=True,
        activation="relu",
        kernel_initializer=FAN_IN_UNIFORM,
        name=f"{name}_reduce",
        dtype=dtype,
    )(x)


def repmlp_unit(
    x: Tensor,
    *,
    share_sets: int,
    block_size: tuple[int, int] | None,
    local_kernels: Sequence[Any],
    locality_injected: bool,
    gate_reduction: int | None,
    mlp_ratio: float,
    drop_path_rate: float,
    name: str,
    dtype: Any,
) -> Tensor:
    """Return `z = y + FFN(BN(y))` with `y = x + Block(BN(x))` (Sect. 4.3).

    The RepMLP Block is the sum of Channel and Local Perceptron times the gate of
    the Global Perceptron (Fig. 1); `gate_reduction=None` leaves the gate out.
    """
    layers = keras.layers
    h = BatchNorm(name=f"{name}_norm", dtype=dtype)(x)
    y = SetSharingLinear(
        share_sets,
        block_size=block_size,
        local_kernels=() if locality_injected else local_kernels,
        use_bias=locality_injected,
        norm=None if locality_injected else "batch",
        name=f"{name}_channel_perceptron",
        dtype=dtype,
    )(h)
    if gate_reduction is not None:
        gate = GlobalPerceptron(
            gate_reduction,
            kernel_initializer=FAN_IN_UNIFORM,
            name=f"{name}_global_perceptron",
            dtype=dtype,
        )(h)
        y = layers.Multiply(name=f"{name}_gate", dtype=dtype)([y, gate])
    y = drop_path(drop_path_rate, name=f"{name}_drop1", dtype=dtype)(y)
    x = layers.Add(name=f"{name}_add1", dtype=dtype)([x, y])
    y = ChannelMLP(
        mlp_ratio,
        norm="batch",
        hidden_norm="batch",
        use_bias=False,
        kernel_initializer=FAN_IN_UNIFORM,
        name=f"{name}_ffn",
        dtype=dtype,
    )(x)
    y = drop_path(drop_path_rate, name=f"{name}_drop2", dtype=dtype)(y)
    return layers.Add(name=f"{name}_add2", dtype=dtype)([x, y])
