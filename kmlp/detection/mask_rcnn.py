"""Mask R-CNN, without masks Faster R-CNN, and Cascade Mask R-CNN.

He, Gkioxari, Dollár, Girshick: Mask R-CNN, 2017. Cai, Vasconcelos: Cascade R-CNN: High
Quality Object Detection and Instance Segmentation, 2019.
"""

import keras

from kmlp.detection.two_stage import Stage, TwoStageDetector
from kmlp.errors import InputError


@keras.saving.register_keras_serializable("kmlp")
class MaskRCNN(TwoStageDetector):
    """Mask R-CNN (defaults: the reference framework's configuration for COCO).

    In inference a dictionary of `boxes` `(N, D, 4)` in pixels, `scores` `(N, D)`,
    `classes` `(N, D)` and `masks` `(N, D, 28, 28)`, probabilities over the box; best
    first, then places of class -1.

    Args:
        backbone: a functional model with `pyramid_outputs` P2…P5.
        num_classes: of objects.
        fpn_filters: channels of the pyramid and of the proposal network.
        anchor_scale: side of the anchors, in strides.
        ratios: heights of the anchors over their widths.
        rpn_beta: of the smooth L1 loss of proposals; 0: L1.
        candidates, training_candidates: best anchors of a level that are looked at.
        proposals, training_proposals: regions of an image that remain of them.
        finest_scale: side of the square boxes that level P2 is made for.
        roi_samples: regions of an image that are learned from.
        positive_share: largest share of objects among them.
        fc_units: units of each of the two fully connected layers.
        box_loss: `"l1"`, `"smooth_l1"` or `"giou"`.
        masks: whether there are masks; `False` gives Faster R-CNN.
        mask_convs, mask_filters: of the mask head.
        score_threshold: probability above which a detection counts.
        nms_threshold: IoU above which the lower of two detections of a class goes.
        max_detections: of an image.
        tap_norm: norm on the backbone's taps, as `kmlp.models.dense.pyramid_of`.
        name, dtype: of the model.

    Raises:
        InputError: a backbone without these levels, or an argument out of its range.

    Reference: Sect. 3; Feature Pyramid Networks, Sect. 4.
    """

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        fpn_filters=256,
        anchor_scale=8,
        ratios=(0.5, 1.0, 2.0),
        rpn_beta=0.0,
        candidates=1000,
        training_candidates=2000,
        proposals=1000,
        training_proposals=1000,
        finest_scale=56,
        roi_samples=512,
        positive_share=0.25,
        fc_units=1024,
        box_loss="l1",
        masks=True,
        mask_convs=4,
        mask_filters=256,
        score_threshold=0.05,
        nms_threshold=0.5,
        max_detections=100,
        tap_norm="auto",
        name="mask_rcnn",
        dtype=None,
    ):
        super().__init__(
            backbone,
            stages=[Stage()],
            head={"units": (fc_units, fc_units)},
            name=name,
            dtype=dtype,
        )


STAGES = (
    Stage(0.5, (0.1, 0.1, 0.2, 0.2), 1.0),
    Stage(0.6, (0.05, 0.05, 0.1, 0.1), 0.5),
    Stage(0.7, (0.033, 0.033, 0.067, 0.067), 0.25),
)
BOX_HEADS = ("2fc", "4conv1fc")


@keras.saving.register_keras_serializable("kmlp")
class CascadeMaskRCNN(TwoStageDetector):
    """Cascade Mask R-CNN (defaults: the reference framework's configuration for COCO).

    A stage's boxes, moved as it says for their class, are the next one's regions. In
    training the objects' own boxes join every stage's regions and do not go on to the
    next. In inference classes are judged by the mean of the stages' logits, masks by
    the mean of their probabilities; outputs are those of `MaskRCNN`.

    Args:
        backbone: a functional model with `pyramid_outputs` P2…P5.
        num_classes: of objects.
        box_head: `"2fc"`: two fully connected layers, boxes for all classes at once;
            `"4conv1fc"`: four convolutions with BatchNorm and one fully connected
            layer, boxes of each class, as in the published transformers' recipe,
            which has `box_loss="giou"` with it.
        box_loss: `"smooth_l1"`, `"l1"` or `"giou"`.
        conv_filters: of the convolutions of `"4conv1fc"`.

    All other arguments are those of `MaskRCNN`.

    Raises:
        InputError: a backbone without these levels, or an argument out of its range.

    Reference: Sect. 4, 5.
    """

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        box_head="2fc",
        fpn_filters=256,
        anchor_scale=8,
        ratios=(0.5, 1.0, 2.0),
        rpn_beta=1.0 / 9.0,
        candidates=1000,
        training_candidates=2000,
        proposals=1000,
        training_proposals=2000,
        finest_scale=56,
        roi_samples=512,
        positive_share=0.25,
        conv_filters=256,
        fc_units=1024,
        box_loss="smooth_l1",
        masks=True,
        mask_convs=4,
        mask_filters=256,
        score_threshold=0.05,
        nms_threshold=0.5,
        max_detections=100,
        tap_norm="auto",
        name="cascade_mask_rcnn",
        dtype=None,
    ):
        if box_head not in BOX_HEADS:
            raise InputError(
                f"`box_head` must be one of {', '.join(BOX_HEADS)}. "
                f"Received: box_head={box_head!r}"
            )
        head = {"units": (fc_units, fc_units), "class_agnostic": True}
        if box_head == "4conv1fc":
            head = {"convs": 4, "filters": conv_filters, "units": (fc_units,)}
        super().__init__(
            backbone,
            stages=STAGES,
            head=head,
            name=name,
            dtype=dtype,
        )
