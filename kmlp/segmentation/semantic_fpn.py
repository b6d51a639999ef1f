"""Semantic FPN: a light head over a feature pyramid.

Kirillov, Girshick, He, Dollár: Panoptic Feature Pyramid Networks, CVPR 2019.
"""

import keras

from kmlp.layers.feature_pyramid import FeaturePyramid, Resize
from kmlp.models.dense import pyramid_of
from kmlp.segmentation.segmenter import Segmenter, classify, conv


@keras.saving.register_keras_serializable("kmlp")
class SemanticFPN(Segmenter):
    """Semantic FPN over any hierarchical backbone.

    Every level of the pyramid is brought to stride 4 by as many steps of 3×3
    convolution, BatchNorm, ReLU and bilinear doubling as it takes; the sum is
    classified.

    Args:
        backbone: functional model with `pyramid_outputs` P2…P5.
        num_classes: classes; void is none.
        fpn_filters: channels of the pyramid.
        filters: channels of the steps.
        dropout: share of channels left out before the classifier.
        tap_norm: `"layer"`, `None`, or `"auto"` as the family's networks have it.
        name, dtype: of the model; layers follow the dtype policy.

    Shapes: `(N, H, W, 3)` to logits `(N, H, W, num_classes)`, float32.

    Raises:
        InputError: a backbone without these levels.

    Reference: Sect. 3, Fig. 3; ConvMLP Sect. 4.6.
    """

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        fpn_filters=256,
        filters=128,
        dropout=0.1,
        tap_norm="auto",
        name="semantic_fpn",
        dtype=None,
    ):
        pyramid, inputs, maps = pyramid_of(backbone, norm=tap_norm, dtype=dtype)
        levels = FeaturePyramid(fpn_filters, name="fpn", dtype=dtype)(maps)
        sums = []
        for level, x in enumerate(levels):
            for step in range(max(level, 1)):
                prefix = f"p{level + 2}_step{step}"
                x = conv(filters, 3, f"{prefix}_conv", dtype)(x)
                if level:
                    x = Resize(2, name=f"{prefix}_double", dtype=dtype)(x)
            if level:
                # Maps of odd size were rounded up on their way.
                like = Resize(name=f"p{level + 2}_fit", dtype=dtype)
                x = like([x, sums[0]])
            sums.append(x)
        x = keras.layers.Add(name="sum", dtype=dtype)(sums)
        super().__init__(
            inputs,
            classify(x, num_classes, dropout, "classifier", dtype),
            backbone=backbone,
            pyramid=pyramid,
            config={
                "num_classes": num_classes,
                "fpn_filters": fpn_filters,
                "filters": filters,
                "dropout": dropout,
                "tap_norm": tap_norm,
            },
            name=name,
            dtype=dtype,
        )
