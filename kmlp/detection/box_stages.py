"""A stage of a detector that judges regions, and what it learns from."""

import dataclasses

from keras import ops

from kmlp.detection import detection_losses
from kmlp.detection.boxes import decode, encode
from kmlp.detection.detections import masks_of, of_class
from kmlp.detection.regions import mask_targets, mean_share, rows_of
from kmlp.detection.rpn import distance

BOX_LOSSES = ("l1", "smooth_l1", "giou")
# The published recipe of transformers weighs its GIoU loss so.
GIOU_WEIGHT = 10.0


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


def class_loss(regions, logits):
    """Cross-entropy, a mean over sampled regions: `(N,)`."""
    apart = detection_losses.softmax(logits, regions.labels)
    apart = apart * ops.cast(regions.sampled, "float32")
    return ops.sum(apart, axis=1) * mean_share(regions.sampled)


def box_loss(regions, codes, std, kind):
    """Distances of the positives' boxes, a mean over all sampled regions: `(N,)`.

    Args:
        regions: `Regions`.
        codes: `(N, S, K or 1, 4)`.
        std: of the codes.
        kind: one of `BOX_LOSSES`: of the codes, or of the boxes they mean.
    """
    # Background has no class of its own; what it reads is not counted.
    codes = of_class(codes, ops.minimum(regions.labels, codes.shape[2] - 1))
    if kind == "giou":
        moved = decode(regions.boxes, codes, std)
        apart = GIOU_WEIGHT * detection_losses.giou(moved, regions.objects)
    else:
        wanted = encode(regions.boxes, regions.objects, std)
        beta = 1.0 if kind == "smooth_l1" else 0.0
        apart = ops.sum(distance(codes, wanted, beta), axis=-1)
    apart = ops.where(regions.positive, apart, 0.0)
    return ops.sum(apart, axis=1) * mean_share(regions.sampled)


def mask_loss(regions, logits, masks):
    """Cross-entropy of the masks of the class, a mean over positives: `(N,)`.

    Args:
        regions: `Regions`, of which the first P can be positive.
        logits: `(N, P, h, h, K)`.
        masks: `(N, M, S, S)`, the objects', each over its own box.
    """
    most, size, _, num_classes = logits.shape[1:]
    positive = ops.cast(regions.positive[:, :most], "float32")
    classes = ops.minimum(regions.labels[:, :most], num_classes - 1)
    wanted = mask_targets(
        regions.boxes[:, :most],
        regions.objects[:, :most],
        rows_of(masks, regions.index[:, :most]),
        size,
    )
    apart = ops.mean(
        detection_losses.binary(masks_of(logits, classes), wanted), axis=(2, 3)
    )
    return ops.sum(apart * positive, axis=1) * mean_share(positive)
