"""Mask R-CNN, without masks Faster R-CNN, and Cascade Mask R-CNN.

He, Gkioxari, Dollár, Girshick: Mask R-CNN, 2017. Cai, Vasconcelos: Cascade R-CNN: High
Quality Object Detection and Instance Segmentation, 2019.
"""

import dataclasses
from typing import Any

import keras
from keras import ops

from kmlp.detection.boxes import Anchors
from kmlp.detection.detection_heads import BoxHead, MaskHead, RPNHead
from kmlp.detection.detection_losses import BOX_LOSSES, box_loss, class_loss, mask_loss
from kmlp.detection.detections import (
    ClassMasks,
    Detections,
    Refine,
    likeliest,
    refine,
)
from kmlp.detection.regions import Sampler, sample_regions
from kmlp.detection.roi_align import RoIAlign
from kmlp.detection.rpn import Proposals, rpn_losses
from kmlp.errors import InputError
from kmlp.layers.feature_pyramid import FeaturePyramid
from kmlp.layers.layer import recorded_arguments
from kmlp.models.dense import DenseModel, pyramid_of
from kmlp.typing import Tensor

STRIDES = (4, 8, 16, 32)
# Bins of a region's features, for its box and for its mask.
BOX_SIZE, MASK_SIZE = 7, 14
RPN_SAMPLES, RPN_SHARE = 256, 0.5
BOX_HEADS = ("2fc", "4conv1fc")
_COUNTS = (
    "num_classes",
    "candidates",
    "training_candidates",
    "proposals",
    "training_proposals",
    "roi_samples",
    "max_detections",
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One judgement of regions.

    Args:
        positive: IoU from which a region is learned as an object.
        std: Deviations of the boxes' codes.
        weight: Weight of the stage's losses.
    """

    positive: float = 0.5
    std: tuple[float, ...] = (0.1, 0.1, 0.2, 0.2)
    weight: float = 1.0


@keras.saving.register_keras_serializable("kmlp")
class MaskRCNN(DenseModel):
    """Mask R-CNN (defaults: the reference framework's configuration for COCO).

    In inference a dictionary of `boxes` `(N, D, 4)` in pixels, `scores` `(N, D)`,
    `classes` `(N, D)` and `masks` `(N, D, 28, 28)`, probabilities over the box; best
    first, then places of class -1.

    Args:
        backbone: Functional model with `pyramid_outputs` P2…P5.
        num_classes: Number of classes of objects.
        fpn_filters: Channels of the pyramid and of the proposal network.
        anchor_scale: Side of the anchors, in strides.
        ratios: Heights of the anchors over their widths.
        rpn_beta: Bound of the smooth L1 loss of proposals; 0: L1.
        candidates, training_candidates: Best anchors of a level that are looked at.
        proposals, training_proposals: Regions of an image that remain of them.
        finest_scale: Side of the square boxes that level P2 is made for.
        roi_samples: Regions of an image that are learned from.
        positive_share: Largest share of objects among them.
        fc_units: Units of each of the two fully connected layers.
        box_loss: Loss of the boxes, `"l1"`, `"smooth_l1"` or `"giou"`.
        masks: Whether there are masks; `False` gives Faster R-CNN.
        mask_convs, mask_filters: Convolutions of the mask head and their channels.
        score_threshold: Probability above which a detection counts.
        nms_threshold: IoU above which the lower of two detections of a class goes.
        max_detections: Detections of an image.
        tap_norm: Norm on the backbone's taps, as `kmlp.models.dense.pyramid_of`.
        name, dtype: Name and dtype policy of the model.

    Raises:
        InputError: If the backbone lacks these levels or an argument is out of its
            range.

    Reference: Sect. 3; Feature Pyramid Networks, Sect. 4.
    """

    task = "detection"
    stages: tuple[Stage, ...] = (Stage(),)

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
        _check(recorded_arguments(self))
        pyramid, images, maps = pyramid_of(backbone, norm=tap_norm, dtype=dtype)
        maps = FeaturePyramid(
            fpn_filters, extra=1, extra_from="pool", name="fpn", dtype=dtype
        )(maps)
        fine = maps[: len(STRIDES)]
        anchors = Anchors((anchor_scale,), tuple(ratios), (*STRIDES, 64))

        rpn = RPNHead(fpn_filters, anchors.count, name="rpn", dtype=dtype)
        levels = [rpn(x) for x in maps]
        objectness, codes = ([level[i] for level in levels] for i in range(2))
        propose, propose_in_training = (
            Proposals(
                anchors.scales,
                anchors.ratios,
                anchors.strides,
                candidates=candidates,
                count=count,
                name=name,
                dtype="float32",
            )
            for candidates, count, name in (
                (candidates, proposals, "proposals"),
                (training_candidates, training_proposals, "training_proposals"),
            )
        )
        boxes = propose([images, *objectness, *codes])

        stages, head = self.stages, self._box_head()
        numbers = [""] if len(stages) == 1 else list(range(len(stages)))
        box_features, mask_features = (
            RoIAlign(
                size,
                strides=STRIDES,
                finest_scale=finest_scale,
                name=f"{what}_features",
                dtype=dtype,
            )
            for size, what in ((BOX_SIZE, "box"), (MASK_SIZE, "mask"))
        )
        box_heads = [
            BoxHead(num_classes, name=f"box_head{i}", dtype=dtype, **head)
            for i in numbers
        ]
        logits = []
        for i, (stage, judge) in enumerate(zip(stages, box_heads)):
            found, codes_of_stage = judge(box_features([*fine, boxes]))
            logits.append(found)
            if i + 1 < len(stages):
                boxes = Refine(stage.std, name=f"refine{i}", dtype="float32")(
                    [images, boxes, found, codes_of_stage]
                )
        outputs = Detections(
            stages[-1].std,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            count=max_detections,
            name="detections",
            dtype="float32",
        )([images, boxes, codes_of_stage, *logits])
        mask_heads = [
            MaskHead(
                num_classes,
                convs=mask_convs,
                filters=mask_filters,
                name=f"mask_head{i}",
                dtype=dtype,
            )
            for i in numbers * masks
        ]
        if masks:
            features = mask_features([*fine, outputs["boxes"]])
            outputs["masks"] = ClassMasks(name="masks", dtype="float32")(
                [outputs["classes"], *(draw(features) for draw in mask_heads)]
            )
        super().__init__(
            images,
            outputs,
            raw={
                "images": images,
                "maps": maps,
                "objectness": objectness,
                "codes": codes,
            },
            backbone=backbone,
            pyramid=pyramid,
            name=name,
            dtype=dtype,
            parts={
                "propose": propose_in_training,
                "box_features": box_features,
                "mask_features": mask_features,
                "box_heads": box_heads,
                "mask_heads": mask_heads,
                "anchor_sampler": Sampler(
                    RPN_SAMPLES, RPN_SHARE, name="anchor_sampler"
                ),
                "region_samplers": [
                    Sampler(roi_samples, positive_share, name=f"region_sampler{i}")
                    for i in numbers
                ],
            },
        )
        self.anchors = anchors
        self.loss_names = ("rpn_class", "rpn_box", "class", "box")
        self.loss_names += ("mask",) * bool(masks)

    def _box_head(self):
        """Return the arguments of `BoxHead` beside the number of classes."""
        units = recorded_arguments(self)["fc_units"]
        return {"units": (units, units)}

    def losses_of(
        self, outputs: Any, targets: Any, training: bool = True
    ) -> dict[str, Tensor]:
        """Compute the losses of images, each as float32 `(N,)`.

        Args:
            outputs: Outputs of `model(images, training=True)`.
            targets: Targets `{"boxes": (N, M, 4), "classes": (N, M), "masks": (N, M, S,
                S)}`; `masks`, each over its own box, only where the model has masks.
            training: Whether BatchNorm in the heads learns.

        Returns:
            Losses `{"rpn_class", "rpn_box", "class", "box"}` and `"mask"`; those of
            several stages are summed by the stages' weights. Each loss's mean over
            images is its mean over what was sampled from them.

        Raises:
            InputError: If targets have no masks and the model has.
        """
        if self.masks and "masks" not in targets:
            raise InputError(
                f"{self.name!r} learns masks: give them in the targets, or build it "
                f"with masks=False. Received: targets with {', '.join(targets)}"
            )
        rpn_class, rpn_box = rpn_losses(
            outputs["objectness"],
            outputs["codes"],
            self.anchors,
            targets,
            self.anchor_sampler,
            self.rpn_beta,
        )
        found = {"rpn_class": rpn_class, "rpn_box": rpn_box}
        maps = outputs["maps"][: len(STRIDES)]
        size = ops.shape(outputs["images"])[1:3]
        boxes = self.propose(
            [outputs["images"], *outputs["objectness"], *outputs["codes"]]
        )
        for i, stage in enumerate(self.stages):
            regions = sample_regions(
                boxes,
                targets,
                self.region_samplers[i],
                positive=stage.positive,
                num_classes=self.num_classes,
            )
            features = self.box_features([*maps, regions.boxes])
            logits, codes = (
                ops.cast(x, "float32")
                for x in self.box_heads[i](features, training=training)
            )
            of_stage = {
                "class": class_loss(regions, logits),
                "box": box_loss(regions, codes, stage.std, self.box_loss),
            }
            if self.masks:
                # Positives come first, and there are no more of them.
                most = self.region_samplers[i].most_positive
                features = self.mask_features([*maps, regions.boxes[:, :most]])
                masks = ops.cast(self.mask_heads[i](features), "float32")
                of_stage["mask"] = mask_loss(regions, masks, targets["masks"])
            for key, value in of_stage.items():
                found[key] = found.get(key, 0.0) + stage.weight * value
            if i + 1 < len(self.stages):
                # Objects' own boxes are perfect already and come in anew.
                classes = ops.where(regions.positive, regions.labels, likeliest(logits))
                keep = ops.logical_and(
                    regions.sampled, ops.logical_not(regions.is_object)
                )
                boxes = refine(regions.boxes, codes, classes, stage.std, size)
                boxes = ops.where(keep[..., None], boxes, 0.0)
        return found


@keras.saving.register_keras_serializable("kmlp")
class CascadeMaskRCNN(MaskRCNN):
    """Cascade Mask R-CNN (defaults: the reference framework's configuration for COCO).

    A stage's boxes, moved as it says for their class, are the next one's regions. In
    training the objects' own boxes join every stage's regions and do not go on to the
    next. In inference classes are judged by the mean of the stages' logits, masks by
    the mean of their probabilities; outputs are those of `MaskRCNN`.

    Args:
        backbone: Functional model with `pyramid_outputs` P2…P5.
        num_classes: Number of classes of objects.
        box_head: Kind of box head. `"2fc"`: two fully connected layers, boxes for all
            classes at once; `"4conv1fc"`: four convolutions with BatchNorm and one
            fully connected layer, boxes of each class, as in the published
            transformers' recipe, which has `box_loss="giou"` with it.
        conv_filters: Channels of the convolutions of `"4conv1fc"`.
        rpn_beta, training_proposals, box_loss, name: As in `MaskRCNN`, with other
            defaults.
        **arguments: Other arguments of `MaskRCNN`.

    Raises:
        InputError: If the backbone lacks these levels or an argument is out of its
            range.

    Reference: Sect. 4, 5.
    """

    stages = (
        Stage(0.5, (0.1, 0.1, 0.2, 0.2), 1.0),
        Stage(0.6, (0.05, 0.05, 0.1, 0.1), 0.5),
        Stage(0.7, (0.033, 0.033, 0.067, 0.067), 0.25),
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        box_head="2fc",
        conv_filters=256,
        rpn_beta=1.0 / 9.0,
        training_proposals=2000,
        box_loss="smooth_l1",
        name="cascade_mask_rcnn",
        **arguments,
    ):
        if box_head not in BOX_HEADS:
            raise InputError(
                f"`box_head` must be one of {', '.join(BOX_HEADS)}. "
                f"Received: box_head={box_head!r}"
            )
        super().__init__(
            backbone,
            num_classes,
            rpn_beta=rpn_beta,
            training_proposals=training_proposals,
            box_loss=box_loss,
            name=name,
            **arguments,
        )

    def _box_head(self):
        known = recorded_arguments(self)
        units, filters = known["fc_units"], known["conv_filters"]
        if known["box_head"] == "4conv1fc":
            return {"convs": 4, "filters": filters, "units": (units,)}
        return {"units": (units, units), "class_agnostic": True}


def _check(config):
    """Refuse arguments that are out of their ranges."""
    for key in _COUNTS:
        if not hasattr(config[key], "__index__") or config[key] < 1:
            raise InputError(
                f"`{key}` is a number of at least 1. Received: {key}={config[key]!r}"
            )
    share, samples = config["positive_share"], config["roi_samples"]
    if not 1 / samples <= share <= 1:
        raise InputError(
            "`positive_share` of `roi_samples` is one sample at least and all at "
            f"most. Received: positive_share={share!r}, roi_samples={samples}"
        )
    if config["box_loss"] not in BOX_LOSSES:
        raise InputError(
            f"`box_loss` must be one of {', '.join(BOX_LOSSES)}. "
            f"Received: box_loss={config['box_loss']!r}"
        )
