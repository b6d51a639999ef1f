"""UperNet: pyramid pooling and a feature pyramid, fused.

Xiao, Liu, Zhou, Jiang, Sun: Unified Perceptual Parsing for Scene Understanding,
ECCV 2018.
"""

from collections.abc import Sequence

import keras

from kmlp.layers.feature_pyramid import AdaptivePooling, Resize
from kmlp.models.dense import LEVELS, pyramid_of
from kmlp.segmentation.segmenter import (
    Segmenter,
    channel_dropout,
    classifier,
    classify,
    conv,
)
from kmlp.typing import Tensor


@keras.saving.register_keras_serializable("kmlp")
class UperNet(Segmenter):
    """UperNet over any hierarchical backbone.

    Args:
        backbone: Functional model with `pyramid_outputs` P2…P5.
        num_classes: Number of classes; void is none.
        filters: Channels of the head.
        pool_bins: Bins along a side of each pooling of the coarsest map.
        dropout: Share of channels left out before each classifier.
        auxiliary: Whether a second head on P4 learns too (an FCN of one
            convolution); it is no part of predictions and of merged models.
        auxiliary_filters: Channels of that head.
        auxiliary_weight: Weight of its loss.
        tap_norm: Norm on every tap, `"layer"`, `None`, or `"auto"` as the family's
            networks have it.
        name, dtype: Name and dtype policy of the model and its layers.

    Shapes: `(N, H, W, 3)` to logits `(N, H, W, num_classes)`, float32.

    Raises:
        InputError: If the backbone lacks these levels.

    Reference: Sect. 3.1, Fig. 4; RepMLPNet Sect. 5.3 and Appendix B; MS-MLP Sect. 4.2.
    """

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        filters=512,
        pool_bins=(1, 2, 3, 6),
        dropout=0.1,
        auxiliary=True,
        auxiliary_filters=256,
        auxiliary_weight=0.4,
        tap_norm="auto",
        name="upernet",
        dtype=None,
    ):
        pyramid, inputs, maps = pyramid_of(backbone, norm=tap_norm, dtype=dtype)

        def resized(x: Tensor, like: Tensor, name: str) -> Tensor:
            return Resize(name=name, dtype=dtype)([x, like])

        def join(maps: Sequence[Tensor], name: str) -> Tensor:
            return keras.layers.Concatenate(axis=-1, name=name, dtype=dtype)(maps)

        top = maps[-1]
        pooled = [top]
        for bins in pool_bins:
            x = AdaptivePooling(bins, name=f"pool{bins}", dtype=dtype)(top)
            x = conv(filters, 1, f"pool{bins}_conv", dtype)(x)
            pooled.append(resized(x, top, f"pool{bins}_enlarge"))
        pooled = join(pooled, "pool_join")
        levels = [
            *(
                conv(filters, 1, f"{level.lower()}_lateral", dtype)(x)
                for level, x in zip(LEVELS, maps[:-1])
            ),
            conv(filters, 3, "pool_conv", dtype)(pooled),
        ]
        for i in reversed(range(len(levels) - 1)):
            prefix = LEVELS[i].lower()
            x = resized(levels[i + 1], levels[i], f"{prefix}_enlarge")
            add = keras.layers.Add(name=f"{prefix}_add", dtype=dtype)
            levels[i] = add([levels[i], x])
        smooth = [
            conv(filters, 3, f"{level.lower()}_smooth", dtype)(x)
            for level, x in zip(LEVELS, levels[:-1])
        ]
        smooth.append(levels[-1])
        smooth[1:] = [
            resized(x, smooth[0], f"{level.lower()}_fit")
            for level, x in zip(LEVELS[1:], smooth[1:])
        ]
        x = conv(filters, 3, "fuse", dtype)(join(smooth, "join"))
        parts, second = {}, None
        if auxiliary:
            parts = {
                "auxiliary_conv": conv(auxiliary_filters, 3, "auxiliary_conv", dtype),
                "auxiliary_dropout": channel_dropout(
                    dropout, "auxiliary_dropout", dtype
                ),
                "auxiliary_classifier": classifier(
                    num_classes, "auxiliary_classifier", dtype
                ),
            }
            second = maps[2]
            for layer in parts.values():
                second = layer(second)
        super().__init__(
            inputs,
            classify(x, num_classes, dropout, "classifier", dtype),
            auxiliary=second,
            weight=auxiliary_weight,
            parts=parts,
            backbone=backbone,
            pyramid=pyramid,
            name=name,
            dtype=dtype,
        )
