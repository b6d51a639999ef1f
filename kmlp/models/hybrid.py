"""MS-MLP in the stages of high resolution, attention in those of low resolution.

Zheng, He, Chen, Zhou: Mixing and Shifting: Exploiting Global and Local
Dependencies in Vision MLPs, 2022, Sect. 4.1.
"""

import keras

from kmlp.errors import InputError, check_choice
from kmlp.layers.initializers import FAN_IN_UNIFORM
from kmlp.layers.layer import drop_path_rates
from kmlp.layers.patch_embed import PatchEmbed
from kmlp.models import msmlp, swin
from kmlp.models.focal import focal_block, focal_input
from kmlp.models.msmlp import mix_shift_block
from kmlp.models.swin import patch_merging, swin_block
from kmlp.models.vision_mlp import VisionMLP, image_input
from kmlp.typing import Activation, DType, Shape, Sizes

ATTENTION = ("swin", "focal")


@keras.saving.register_keras_serializable("kmlp")
class MSMLPHybrid(VisionMLP):
    """MS-MLP + Swin or Focal transformer (defaults: MS-MLP + Swin-T).

    Stages zero and one have mix-shift blocks, the other three the transformer's.

    Args:
        num_classes: Classes of the head; 0: pooled features without a classifier.
        input_shape: Shape `(H, W, C)`: with Swin's attention any sizes, `None` for
            unknown ones, as `SwinTransformer` has it; with Focal's those that
            `FocalTransformer` takes.
        attention: Kind of attention, `"swin"` or `"focal"`.
        stage_zero: Whether there is a stage before the first, on patches of 2 and with
            half its channels; else the first stage is on patches of 4.
        depths: Blocks of stages zero to four; without stage zero of one to four, or of
            all five, the first being left out.
        width: Channels of the first stage; they double from stage to stage.
        heads: Heads of the attention in the last three stages.
        window_size: Positions along each side of a window.
        focal_windows: Side of the region of Focal's pooled windows, in the last three
            stages.
        expansion: Distance to which a window of Focal's sees positions around itself.
        regions: Kernel sizes of the mix-shift blocks' channel groups.
        shifts: Shift distances of the channel groups.
        order: Order of shift and mixing, `"shift_mix"` or `"mix_shift"`.
        mlp_ratio: Hidden channels per channel.
        layer_scale: Initial value of the mix-shift blocks' per-channel scale.
        include_top: Whether the head is included; else the output is the last
            stage's map.
        drop_path_rate: Stochastic depth at the last block, rising from 0.
        head_activation: Activation of the head; `None` gives logits.
        name: Name of the model.
        dtype: Dtype policy, which every layer follows.

    Attributes:
        pyramid_outputs: Maps of stages one to four.

    Raises:
        InputError: If `attention` is unknown, or stages, heads, groups or sizes do
            not fit.

    Reference: Sect. 4.1 (Results with Transformers), Table 10.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        input_shape: Shape = (224, 224, 3),
        *,
        attention: str = "swin",
        stage_zero: bool = True,
        depths: Sizes = (2, 2, 2, 6, 2),
        width: int = 96,
        heads: Sizes = (6, 12, 24),
        window_size: int = 7,
        focal_windows: Sizes = (5, 3, 1),
        expansion: int = 3,
        regions: Sizes = (1, 1, 3, 5, 7),
        shifts: Sizes = (-2, -1, 0, 1, 2),
        order: str = "shift_mix",
        mlp_ratio: float = 4,
        layer_scale: float | None = 1e-6,
        include_top: bool = True,
        drop_path_rate: float = 0.2,
        head_activation: Activation = None,
        name: str | None = "msmlp_hybrid",
        dtype: DType = None,
    ):
        _check(attention, stage_zero, depths, width, heads, focal_windows)
        first = 0 if stage_zero else 1
        depths = tuple(depths)[len(depths) + first - 5 :]
        if attention == "swin":
            inputs = image_input(input_shape, fixed=False)
        else:
            inputs = focal_input(input_shape, (8, 16, 32), window_size)
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        pyramid = {}
        x = inputs
        for stage, depth in enumerate(depths, start=first):
            x = _enter(x, stage, first, width * 2**stage // 2, attention, dtype)
            for block in range(depth):
                common = {
                    "mlp_ratio": mlp_ratio,
                    "drop_path_rate": next(rates),
                    "name": f"stage{stage}_block{block}",
                    "dtype": dtype,
                }
                if stage < 2:
                    x = mix_shift_block(
                        x,
                        regions=regions,
                        shifts=shifts,
                        order=order,
                        layer_scale=layer_scale,
                        **common,
                    )
                elif attention == "swin":
                    x = swin_block(
                        x,
                        heads=heads[stage - 2],
                        window_size=window_size,
                        shift=window_size // 2 if block % 2 else 0,
                        **common,
                    )
                else:
                    x = focal_block(
                        x,
                        heads=heads[stage - 2],
                        window_size=window_size,
                        focal_window=focal_windows[stage - 2],
                        focal_level=2,
                        expansion=expansion,
                        **common,
                    )
            if stage:
                pyramid[f"P{stage + 1}"] = x
        super().__init__(
            inputs,
            x,
            pyramid=pyramid,
            head=swin.HEAD,
            name=name,
            dtype=dtype,
            depths=depths,
        )


def _check(attention, stage_zero, depths, width, heads, focal_windows):
    check_choice(ATTENTION, attention=attention)
    if len(depths) != 5 and (stage_zero or len(depths) != 4):
        raise InputError(
            "`depths` names the blocks of stages zero to four; of one to four with "
            f"stage_zero=False. Received: depths={tuple(depths)}"
        )
    for name, values in {"heads": heads, "focal_windows": focal_windows}.items():
        if len(values) != 3:
            raise InputError(
                f"`{name}` names one value for each of the last three stages. "
                f"Received: {name}={tuple(values)}"
            )
    if width % 2:
        raise InputError(
            f"`width` must be even: stage zero has half of it. Received: width={width}"
        )


def _enter(x, stage, first, filters, attention, dtype):
    """Lead into a stage by an embedding of patches, or by Swin's merging."""
    name = "patch_embed" if stage == first else f"downsample{stage - 1}"
    if stage > 1 and attention == "swin":
        return patch_merging(name=name, dtype=dtype)(x)
    return PatchEmbed(
        filters,
        4 if stage == first == 1 else 2,
        norm="layer",
        epsilon=msmlp.EPSILON if stage < 2 else swin.EPSILON,
        padding="same",
        kernel_initializer=FAN_IN_UNIFORM,
        name=name,
        dtype=dtype,
    )(x)
