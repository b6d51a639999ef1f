"""Segmenters: what they learn, and Semantic FPN.

Kirillov, Girshick, He, Dollár: Panoptic Feature Pyramid Networks, CVPR 2019.
"""

from typing import Any

import keras
from keras import ops

from kmlp.layers.conv_norm import ConvNorm
from kmlp.layers.feature_pyramid import FeaturePyramid, Resize, resize_bilinear
from kmlp.layers.initializers import HE_NORMAL
from kmlp.models.dense import DenseModel, pyramid_of
from kmlp.typing import Tensor

VOID = 255


def pixel_loss(logits: Tensor, labels: Tensor, void: int = VOID) -> Tensor:
    """Compute the cross-entropy of every image, averaged over all its pixels.

    Void pixels add nothing but count in the average, as in the reference framework:
    an image of void alone has the loss 0.

    Args:
        logits: Logits `(N, h, w, K)`, resized to the labels' size.
        labels: Labels `(N, H, W)`, integers, `0 … K - 1` or `void`.
        void: Label of what is not scored.

    Returns:
        Losses `(N,)`, float32.
    """
    logits = resize_bilinear(ops.cast(logits, "float32"), ops.shape(labels)[1:3])
    labels = ops.cast(labels, "int32")
    known = ops.not_equal(labels, void)
    losses = keras.losses.sparse_categorical_crossentropy(
        ops.where(known, labels, 0), logits, from_logits=True
    )
    return ops.mean(ops.where(known, losses, 0.0), axis=(1, 2))


def confusion(
    logits: Tensor, labels: Tensor, num_classes: int, void: int = VOID
) -> Tensor:
    """Count how often each class was taken for each: `(K, K)` float32, rows the truth.

    In a graph, what `kmlp.data.scoring.confusion` counts of arrays.

    Args:
        logits: Logits `(N, H, W, K)` at the labels' size.
        labels: Labels `(N, H, W)`, integers; `void` is not counted.
    """
    labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
    found = ops.reshape(ops.cast(ops.argmax(logits, axis=-1), "int32"), (-1,))
    known = ops.cast(ops.not_equal(labels, void), "float32")
    # Void is no class: its row is that of zeros.
    truth = ops.one_hot(labels, num_classes, dtype="float32") * known[:, None]
    return ops.matmul(
        ops.transpose(truth), ops.one_hot(found, num_classes, dtype="float32")
    )


# With He's and this the reference framework starts its heads.
CLASSIFIER_NORMAL = keras.initializers.RandomNormal(stddev=0.01)


class Segmenter(DenseModel, abstract=True):
    """A model of logits `(N, H, W, num_classes)` for images `(N, H, W, 3)`.

    Targets are `(N, H, W)` integers: a class of every pixel, 255 where there is none.
    """

    task = "segmentation"

    def __init__(self, inputs, logits, *, auxiliary=None, weight=0.0, **kwargs):
        """Take the logits of a fine map, which are enlarged to the images.

        Args:
            inputs: Image tensor.
            logits: Logits of the map that the head works on.
            auxiliary: Logits of a second head that only training has, or `None`.
            weight: Weight of its loss.
            **kwargs: Other arguments of `DenseModel`.
        """
        raw = {"logits": logits}
        if auxiliary is not None:
            raw["auxiliary"] = auxiliary
        # In float32 under any policy: predictions keep their digits.
        enlarged = Resize(name="enlarge", dtype="float32")([logits, inputs])
        super().__init__(inputs, enlarged, raw=raw, **kwargs)
        self._weights_of_losses = {"logits": 1.0, "auxiliary": weight}
        self.loss_names = ("class", "auxiliary")[: len(raw)]

    def losses_of(
        self, outputs: Any, targets: Any, training: bool = True
    ) -> dict[str, Tensor]:
        """Compute the cross-entropy of each head, `(N,)`, times its weight.

        Args:
            outputs: Outputs of `model(images, training=True)`.
            targets: Classes `(N, H, W)`, integers.
            training: Without effect; nothing random or normalised is computed here.
        """
        names = {"logits": "class", "auxiliary": "auxiliary"}
        return {
            names[head]: self._weights_of_losses[head] * pixel_loss(logits, targets)
            for head, logits in outputs.items()
        }


def conv(filters: int, kernel_size: int, name: str, dtype: Any) -> ConvNorm:
    """Return a 3×3 or 1×1 convolution with BatchNorm and ReLU."""
    return ConvNorm(
        filters,
        kernel_size,
        activation="relu",
        kernel_initializer=HE_NORMAL,
        name=name,
        dtype=dtype,
    )


def classify(
    x: Tensor, num_classes: int, dropout: float, name: str, dtype: Any
) -> Tensor:
    """Return logits of a map: channels dropped as wholes, then a 1×1 convolution."""
    if dropout:
        x = channel_dropout(dropout, f"{name}_dropout", dtype)(x)
    return classifier(num_classes, name, dtype)(x)


def channel_dropout(rate: float, name: str, dtype: Any) -> keras.layers.Layer:
    """Return a layer that drops channels as wholes."""
    return keras.layers.SpatialDropout2D(
        rate, data_format="channels_last", name=name, dtype=dtype
    )


def classifier(num_classes: int, name: str, dtype: Any) -> ConvNorm:
    """Return a 1×1 convolution to logits."""
    return ConvNorm(
        num_classes,
        1,
        use_bias=True,
        norm=None,
        kernel_initializer=CLASSIFIER_NORMAL,
        name=name,
        dtype=dtype,
    )


@keras.saving.register_keras_serializable("kmlp")
class SemanticFPN(Segmenter):
    """Semantic FPN over any hierarchical backbone.

    Every level of the pyramid is brought to stride 4 by as many steps of 3×3
    convolution, BatchNorm, ReLU and bilinear doubling as it takes; the sum is
    classified.

    Args:
        backbone: Functional model with `pyramid_outputs` P2…P5.
        num_classes: Number of classes; void is none.
        fpn_filters: Channels of the pyramid.
        filters: Channels of the steps.
        dropout: Share of channels left out before the classifier.
        tap_norm: Norm on every tap, `"layer"`, `None`, or `"auto"` as the family's
            networks have it.
        name, dtype: Name and dtype policy of the model and its layers.

    Shapes: `(N, H, W, 3)` to logits `(N, H, W, num_classes)`, float32.

    Raises:
        InputError: If the backbone lacks these levels.

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
            name=name,
            dtype=dtype,
        )
