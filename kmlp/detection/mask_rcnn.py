"""Mask R-CNN, and without masks Faster R-CNN, over a feature pyramid.

He, Gkioxari, Dollár, Girshick: Mask R-CNN, 2017.
"""

import keras

from kmlp.detection.box_stages import Stage
from kmlp.detection.two_stage import TwoStageDetector


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
            {
                "num_classes": num_classes,
                "fpn_filters": fpn_filters,
                "anchor_scale": anchor_scale,
                "ratios": tuple(ratios),
                "rpn_beta": rpn_beta,
                "candidates": candidates,
                "training_candidates": training_candidates,
                "proposals": proposals,
                "training_proposals": training_proposals,
                "finest_scale": finest_scale,
                "roi_samples": roi_samples,
                "positive_share": positive_share,
                "fc_units": fc_units,
                "box_loss": box_loss,
                "masks": masks,
                "mask_convs": mask_convs,
                "mask_filters": mask_filters,
                "score_threshold": score_threshold,
                "nms_threshold": nms_threshold,
                "max_detections": max_detections,
                "tap_norm": tap_norm,
            },
            stages=[Stage()],
            head={"units": (fc_units, fc_units)},
            name=name,
            dtype=dtype,
        )
