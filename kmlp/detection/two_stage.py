"""What Mask R-CNN and its cascade share: proposals, then stages that judge them."""

import dataclasses

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

STRIDES = (4, 8, 16, 32)
# Bins of a region's features, for its box and for its mask.
BOX_SIZE, MASK_SIZE = 7, 14
RPN_SAMPLES, RPN_SHARE = 256, 0.5


@dataclasses.dataclass(frozen=True)
class Stage:
    """One judgement of regions.

    Args:
        positive: IoU from which a region is learned as an object.
        std: of the boxes' codes.
        weight: of the stage's losses.
    """

    positive: float = 0.5
    std: tuple = (0.1, 0.1, 0.2, 0.2)
    weight: float = 1.0


class TwoStageDetector(DenseModel, abstract=True):
    """A detector that proposes regions and judges them in one stage or several.

    The subclass documents those of its arguments that are read here.

    Args:
        backbone: a functional model with `pyramid_outputs`.
        stages: `Stage`s in their order.
        head: arguments of `BoxHead` beside the number of classes.
        name, dtype: of the model.

    Raises:
        InputError: an argument out of its range, or a backbone without a pyramid.
    """

    task = "detection"

    def __init__(self, backbone, *, stages, head, name, dtype):
        knobs = _checked(recorded_arguments(self))
        pyramid, images, maps = pyramid_of(
            backbone, norm=knobs["tap_norm"], dtype=dtype
        )
        maps = FeaturePyramid(
            knobs["fpn_filters"], extra=1, extra_from="pool", name="fpn", dtype=dtype
        )(maps)
        fine = maps[: len(STRIDES)]
        anchors = Anchors((knobs["anchor_scale"],), knobs["ratios"], (*STRIDES, 64))

        rpn = RPNHead(knobs["fpn_filters"], anchors.count, name="rpn", dtype=dtype)
        levels = [rpn(x) for x in maps]
        objectness, codes = ([level[i] for level in levels] for i in range(2))
        propose = [
            Proposals(
                anchors.scales,
                anchors.ratios,
                anchors.strides,
                candidates=knobs[f"{when}candidates"],
                count=knobs[f"{when}proposals"],
                name=f"{when}proposals",
                dtype="float32",
            )
            for when in ("", "training_")
        ]
        boxes = propose[0]([images, *objectness, *codes])

        numbers = [""] if len(stages) == 1 else range(len(stages))
        box_features, mask_features = (
            RoIAlign(
                size,
                strides=STRIDES,
                finest_scale=knobs["finest_scale"],
                name=f"{what}_features",
                dtype=dtype,
            )
            for size, what in ((BOX_SIZE, "box"), (MASK_SIZE, "mask"))
        )
        box_heads = [
            BoxHead(knobs["num_classes"], name=f"box_head{i}", dtype=dtype, **head)
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
            score_threshold=knobs["score_threshold"],
            nms_threshold=knobs["nms_threshold"],
            count=knobs["max_detections"],
            name="detections",
            dtype="float32",
        )([images, boxes, codes_of_stage, *logits])
        mask_heads = []
        if knobs["masks"]:
            mask_heads = [
                MaskHead(
                    knobs["num_classes"],
                    convs=knobs["mask_convs"],
                    filters=knobs["mask_filters"],
                    name=f"mask_head{i}",
                    dtype=dtype,
                )
                for i in numbers
            ]
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
                "propose": propose[1],
                "box_features": box_features,
                "mask_features": mask_features,
                "box_heads": box_heads,
                "mask_heads": mask_heads,
                "anchor_sampler": Sampler(
                    RPN_SAMPLES, RPN_SHARE, name="anchor_sampler"
                ),
                "region_samplers": [
                    Sampler(
                        knobs["roi_samples"],
                        knobs["positive_share"],
                        name=f"region_sampler{i}",
                    )
                    for i in numbers
                ],
            },
        )
        self.stages, self.anchors = tuple(stages), anchors
        self.loss_names = ("rpn_class", "rpn_box", "class", "box")
        self.loss_names += ("mask",) * bool(knobs["masks"])

    def losses_of(self, outputs, targets, training=True):
        """Losses of images, each as float32 `(N,)`.

        Args:
            outputs: of `model(images, training=True)`.
            targets: `{"boxes": (N, M, 4), "classes": (N, M), "masks": (N, M, S, S)}`;
                `masks`, each over its own box, only where the model has masks.
            training: whether BatchNorm in the heads learns.

        Returns:
            `{"rpn_class", "rpn_box", "class", "box"}` and `"mask"`; those of several
            stages are summed by the stages' weights. Each loss's mean over images is
            its mean over what was sampled from them.

        Raises:
            ValueError: targets without masks for a model that has them.
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


def _checked(config):
    """The arguments, if they are in their ranges."""
    counts = (
        "num_classes",
        "candidates",
        "training_candidates",
        "proposals",
        "training_proposals",
        "roi_samples",
        "max_detections",
    )
    for key in counts:
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
    return config
