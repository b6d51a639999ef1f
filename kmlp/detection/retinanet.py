"""RetinaNet: objects found at every place of a feature pyramid.

Lin et al., Focal Loss for Dense Object Detection, 2017, Sect. 4. As in the published
experiments of ConvMLP (Sect. 4.5) and MS-MLP (Sect. 4.2).
"""

from typing import Any

import keras
from keras import ops

from kmlp.detection import detection_losses
from kmlp.detection.boxes import Anchors, encode, iou
from kmlp.detection.detection_heads import DenseHead
from kmlp.detection.detections import DenseDetections
from kmlp.detection.regions import match
from kmlp.errors import InputError
from kmlp.layers.feature_pyramid import FeaturePyramid
from kmlp.models.dense import DenseModel, pyramid_of
from kmlp.typing import Tensor

LEVELS = ("P3", "P4", "P5")
STRIDES = (8, 16, 32, 64, 128)
# The bound of the smooth L1 loss.
BOX_LOSSES = {"l1": 0.0, "smooth_l1": 1.0 / 9}


@keras.saving.register_keras_serializable("kmlp")
class RetinaNet(DenseModel):
    """A detector of one stage over a pyramid P3…P7.

    Args:
        backbone: Functional model with `pyramid_outputs` P3, P4, P5.
        num_classes: Number of classes K.
        fpn_filters: Channels of the pyramid and of the heads.
        head_convs: Convolutions of each head before its prediction.
        anchor_scale: Side of the smallest square anchor, in strides.
        scales_per_octave: Sizes of anchors between one level and the next.
        ratios: Height / width of the anchors.
        box_loss: Loss of the boxes, `"l1"` or `"smooth_l1"`.
        focal_gamma, focal_alpha: Arguments of the focal loss.
        prior: Probability that every class starts with.
        candidates: Candidates of each level, before suppression.
        score_threshold: Score that detections exceed.
        nms_threshold: IoU above which the lower of two detections of a class goes.
        max_detections: Detections of an image, D.
        tap_norm: Norm on every tap, `"layer"`, `None` or `"auto"`, as `pyramid_of`
            takes it.
        name, dtype: Name and dtype policy of the model.

    Shapes: images `(N, H, W, 3)` to a dict of `boxes` `(N, D, 4)` in pixels
    (x1, y1, x2, y2), `scores` `(N, D)`, `classes` `(N, D)` int32: best first, empty
    places with class -1, score 0 and zero boxes. With `training=True`: a dict of the
    levels' maps, `class` logits `(N, h, w, A·K)` and `box` codes `(N, h, w, A·4)`.

    Raises:
        InputError: If an argument is out of its range or the backbone lacks these
            levels.

    Reference: Lin et al., Focal Loss for Dense Object Detection, 2017, Sect. 4.
    """

    task = "detection"
    loss_names = ("class", "box")

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        fpn_filters=256,
        head_convs=4,
        anchor_scale=4,
        scales_per_octave=3,
        ratios=(0.5, 1, 2),
        box_loss="l1",
        focal_gamma=2,
        focal_alpha=0.25,
        prior=0.01,
        candidates=1000,
        score_threshold=0.05,
        nms_threshold=0.5,
        max_detections=100,
        tap_norm="auto",
        name="retinanet",
        dtype=None,
    ):
        if not isinstance(num_classes, int) or num_classes < 1:
            raise InputError(
                "`num_classes` counts the classes of objects and is 1 or more; "
                f"background is none of them. Received: num_classes={num_classes!r}"
            )
        if box_loss not in BOX_LOSSES:
            raise InputError(
                f"`box_loss` must be one of {', '.join(BOX_LOSSES)}. "
                f"Received: box_loss={box_loss!r}"
            )
        if not 0 < prior < 1:
            raise InputError(
                "`prior` is a probability between 0 and 1, both excluded. "
                f"Received: prior={prior!r}"
            )
        scales = tuple(
            anchor_scale * 2 ** (i / scales_per_octave)
            for i in range(scales_per_octave)
        )
        anchors = Anchors(scales, tuple(ratios), STRIDES)
        pyramid, images, maps = pyramid_of(backbone, LEVELS, norm=tap_norm, dtype=dtype)
        levels = FeaturePyramid(
            fpn_filters, extra=2, extra_from="input", name="fpn", dtype=dtype
        )(maps)
        raw = {
            "class": DenseHead(
                anchors.count * num_classes,
                fpn_filters,
                head_convs,
                prior=prior,
                name="class_head",
                dtype=dtype,
            )(levels),
            "box": DenseHead(
                anchors.count * 4, fpn_filters, head_convs, name="box_head", dtype=dtype
            )(levels),
        }
        detections = DenseDetections(
            num_classes,
            scales=anchors.scales,
            ratios=anchors.ratios,
            strides=anchors.strides,
            candidates=candidates,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
            name="detections",
            dtype="float32",
        )({"images": images, **raw})
        super().__init__(
            images,
            detections,
            raw=raw,
            backbone=backbone,
            pyramid=pyramid,
            name=name,
            dtype=dtype,
        )
        self._anchors = anchors

    def losses_of(
        self, outputs: Any, targets: Any, training: bool = True
    ) -> dict[str, Tensor]:
        """Compute the focal loss of the classes and the loss of the boxes' codes.

        Args:
            outputs: Outputs of `model(images, training=True)`.
            targets: A dict of `boxes` `(N, M, 4)` and `classes` `(N, M)`, -1 where
                there is no object.
            training: Without effect; nothing random or normalised is computed here.

        Returns:
            Losses `{"class": (N,), "box": (N,)}`, float32: sums over anchors, divided
            by the batch's mean number of positives, where an image without any counts
            one.
        """
        boxes = ops.cast(targets["boxes"], "float32")
        classes = ops.cast(targets["classes"], "int32")
        shapes = [ops.shape(x)[1:3] for x in outputs["class"]]
        anchors = ops.concatenate(self._anchors.boxes(shapes), axis=0)
        index, label = match(
            iou(anchors[None], boxes), classes >= 0, 0.5, 0.4, low_quality=True
        )
        positive = ops.cast(ops.equal(label, 1), "float32")
        mean_positives = ops.mean(ops.maximum(ops.sum(positive, axis=1), 1.0))

        classes = ops.one_hot(
            ops.take_along_axis(classes, index, axis=1), self.num_classes
        )
        class_loss = detection_losses.focal(
            detection_losses.flat(outputs["class"], self.num_classes),
            ops.cast(classes, "float32") * positive[..., None],
            self.focal_gamma,
            self.focal_alpha,
        )
        learned = ops.cast(label >= 0, "float32")
        codes = encode(anchors, ops.take_along_axis(boxes, index[..., None], axis=1))
        box_loss = detection_losses.smooth_l1(
            detection_losses.flat(outputs["box"], 4),
            ops.stop_gradient(codes),
            BOX_LOSSES[self.box_loss],
        )
        return {
            "class": ops.sum(class_loss * learned[..., None], (1, 2)) / mean_positives,
            "box": ops.sum(box_loss * positive[..., None], (1, 2)) / mean_positives,
        }
