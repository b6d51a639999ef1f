"""Focal Transformer: self-attention that is fine nearby and coarse farther away.

Yang, Li, Zhang, Dai, Xiao, Yuan, Gao: Focal Self-attention for Local-Global
Interactions in Vision Transformers, NeurIPS 2021.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import keras

from kmlp.errors import InputError, check_positive
from kmlp.layers.focal_attention import FocalAttention
from kmlp.layers.focal_windows import tiling
from kmlp.layers.initializers import FAN_IN_UNIFORM, NORMAL
from kmlp.layers.layer import drop_path_rates
from kmlp.layers.patch_embed import PatchEmbed
from kmlp.models.swin import EPSILON, HEAD, transformer_block
from kmlp.models.vision_mlp import VisionMLP, check_stages, image_input
from kmlp.typing import Activation, DType, Shape, Sizes, Tensor


@keras.saving.register_keras_serializable("kmlp")
class FocalTransformer(VisionMLP):
    """Focal Transformer (defaults: Focal-T): without shift, pooling by a Dense.

    Args:
        num_classes: Classes of the head; 0: pooled features without a classifier.
        input_shape: Shape `(H, W, C)`: known sizes, at which every stage's map halves
            exactly and is tiled by its windows.
        patch_size: Side of the patches.
        width: Channels of the first stage; they double from stage to stage.
        depths: Blocks per stage, any number of stages.
        heads: Attention heads per stage.
        window_size: Side of the windows; on a map with a side no longer than that,
            windows are as large as that side, and see no positions around them.
        focal_windows: Side of the region of pooled windows per stage, odd.
        focal_levels: Focal level of each stage: 2, or 1 for attention without pooled
            windows.
        expansion: Distance to which a window sees around itself; 0: not at all.
        mlp_ratio: Hidden channels per channel.
        include_top: Whether the head is included; else the output is the last
            stage's map.
        drop_path_rate: Stochastic depth at the last block, rising from 0.
        head_activation: Activation of the head; `None` gives logits.
        name: Name of the model.
        dtype: Dtype policy, which every layer follows.

    Raises:
        InputError: If stages, heads or windows do not fit, or a size is none that the
            windows do not tile; the message names the nearest that they do.

    Reference: Sect. 3, Table 1.
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
        focal_windows: Sizes = (7, 5, 3, 1),
        focal_levels: Sizes = (2, 2, 2, 2),
        expansion: int = 3,
        mlp_ratio: float = 4,
        include_top: bool = True,
        drop_path_rate: float = 0.2,
        head_activation: Activation = None,
        name: str | None = "focal",
        dtype: DType = None,
    ):
        check_stages(
            depths=depths,
            heads=heads,
            focal_windows=focal_windows,
            focal_levels=focal_levels,
        )
        strides = [patch_size * 2**stage for stage in range(len(depths))]
        inputs = focal_input(input_shape, strides, window_size)
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        pyramid = {}
        x = inputs
        for stage, depth in enumerate(depths):
            x = PatchEmbed(
                width * 2**stage,
                patch_size if stage == 0 else 2,
                norm="layer",
                epsilon=EPSILON,
                kernel_initializer=FAN_IN_UNIFORM,
                name="patch_embed" if stage == 0 else f"downsample{stage - 1}",
                dtype=dtype,
            )(x)
            for block in range(depth):
                x = focal_block(
                    x,
                    heads=heads[stage],
                    window_size=window_size,
                    focal_window=focal_windows[stage],
                    focal_level=focal_levels[stage],
                    expansion=expansion,
                    mlp_ratio=mlp_ratio,
                    drop_path_rate=next(rates),
                    name=f"stage{stage}_block{block}",
                    dtype=dtype,
                )
            pyramid[f"P{strides[stage].bit_length() - 1}"] = x
        super().__init__(
            inputs,
            x,
            pyramid=pyramid,
            head=HEAD,
            name=name,
            dtype=dtype,
        )


def focal_block(
    x: Tensor,
    *,
    heads: int,
    window_size: int,
    focal_window: int,
    focal_level: int,
    expansion: int,
    mlp_ratio: float,
    drop_path_rate: float,
    name: str,
    dtype: Any,
) -> Tensor:
    """Apply focal attention, then the channel MLP, with norm and shortcut (Fig. 2)."""
    attention = FocalAttention(
        heads,
        window_size,
        focal_window=focal_window,
        focal_level=focal_level,
        expansion=expansion,
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


def focal_input(input_shape: Shape, strides: Sequence[int], window_size: int) -> Tensor:
    """Return the input tensor of a network with focal attention at these strides.

    Args:
        input_shape: Shape `(H, W, C)`, known, multiples of the last stride.
        strides: Strides of the stages with focal attention, rising.
        window_size: Side of the windows of all of them.

    Raises:
        InputError: If sizes are unknown, or the windows do not tile them at every
            stride; the message names the nearest that they do.
    """
    check_positive(window_size=window_size)
    shape = tuple(input_shape)
    if len(shape) == 3 and None in shape[:2]:
        raise InputError(
            "`input_shape` needs a known height and width: focal attention knows the "
            f"windows of its map. Received: input_shape={input_shape}"
        )
    if len(shape) == 3 and not _fits(shape[:2], strides, window_size):
        nearest = _nearest(shape[:2], strides, window_size)
        raise InputError(
            f"`input_shape` must halve exactly down to stride {strides[-1]}, and "
            f"windows of {window_size}x{window_size} must tile the map of every stage "
            "with focal attention; the nearest that fit, height x width: "
            f"{', '.join(f'{h}x{w}' for h, w in nearest)}. "
            f"Received: input_shape={input_shape}"
        )
    return image_input(shape, fixed=True)


def _fits(size, strides, window_size):
    """Return whether windows tile a map of a size at every stride."""
    if any(s < strides[-1] or s % strides[-1] for s in size):
        return False
    maps = ([s // stride for s in size] for stride in strides)
    return all(tiling(grid, window_size) for grid in maps)


def _nearest(size, strides, window_size):
    """Return the sizes that fit best: above or below along either axis."""
    step, best = strides[-1], {}
    # Multiples of step and window fit, so there is one within a window.
    axes = (
        [
            k * step
            for k in range(max(s // step - window_size, 1), s // step + window_size + 1)
        ]
        for s in size
    )
    fitting = (c for c in itertools.product(*axes) if _fits(c, strides, window_size))
    for candidate in fitting:
        distance = sum(abs(a - b) for a, b in zip(candidate, size))
        # A size that is met exactly is on both sides.
        sides = [
            [side for side, holds in (("below", a <= b), ("above", a >= b)) if holds]
            for a, b in zip(candidate, size)
        ]
        for side in itertools.product(*sides):
            if side not in best or distance < best[side][0]:
                best[side] = distance, candidate
    return sorted({candidate for _, candidate in best.values()})
