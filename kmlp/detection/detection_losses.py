"""Losses of a detector's predictions."""

from collections.abc import Sequence

from keras import ops

from kmlp.detection.boxes import TINY, area, decode, encode
from kmlp.detection.detections import masks_of, of_class
from kmlp.detection.regions import Regions, mask_targets, mean_share, rows_of
from kmlp.typing import Tensor


def flat(maps: Sequence[Tensor], width: int) -> Tensor:
    """Join maps `(N, H, W, A · width)` of all levels, float32 `(N, all, width)`."""
    maps = [ops.cast(x, "float32") for x in maps]
    return ops.concatenate(
        [ops.reshape(x, (ops.shape(x)[0], -1, width)) for x in maps], axis=1
    )


def binary(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross-entropy of logits with targets in 0…1, of any equal shape."""
    softplus = ops.log1p(ops.exp(-ops.abs(logits)))
    return ops.maximum(logits, 0.0) - logits * targets + softplus


def softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the cross-entropy of logits `(…, K)` with integer labels `(…,)`."""
    labels = ops.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return -ops.sum(labels * ops.log_softmax(logits, axis=-1), axis=-1)


def focal(
    logits: Tensor, targets: Tensor, gamma: float = 2.0, alpha: float = 0.25
) -> Tensor:
    """Compute a binary cross-entropy that fades where the prediction is right.

    Args:
        logits, targets: Tensors of equal shapes; targets are 0 or 1.
        gamma: Power of the fading; 0 gives the balanced cross-entropy.
        alpha: Weight of the targets 1; those of 0 weigh `1 - alpha`.

    Reference: Lin et al., Focal Loss for Dense Object Detection, 2017, Eq. 5.
    """
    # The probability of the wrong answer, 1 - p_t: exact where p_t is close to 1.
    wrong = ops.sigmoid(ops.where(targets > 0.5, -logits, logits))
    weight = ops.where(targets > 0.5, alpha, 1.0 - alpha)
    fading = wrong**gamma if gamma else 1.0
    return weight * fading * binary(logits, targets)


def smooth_l1(predictions: Tensor, targets: Tensor, beta: float = 1.0 / 9) -> Tensor:
    """Compute absolute differences, quadratic below `beta`; 0 gives L1.

    Reference: Girshick, Fast R-CNN, 2015, Eq. 3.
    """
    distance = ops.abs(predictions - targets)
    if not beta:
        return distance
    # Bounded, so that the branch not taken gives no large gradients.
    near = ops.minimum(distance, beta)
    return ops.where(distance < beta, 0.5 * near * near / beta, distance - 0.5 * beta)


def giou(predictions: Tensor, targets: Tensor) -> Tensor:
    """Compute one minus the generalised IoU of boxes `(…, 4)`, pair by pair: `(…,)`.

    Reference: Rezatofighi et al., Generalized Intersection over Union, 2019.
    """
    p, t = predictions, targets
    inner = ops.concatenate(
        [ops.maximum(p[..., :2], t[..., :2]), ops.minimum(p[..., 2:], t[..., 2:])], -1
    )
    outer = ops.concatenate(
        [ops.minimum(p[..., :2], t[..., :2]), ops.maximum(p[..., 2:], t[..., 2:])], -1
    )
    shared, hull = area(inner), ops.maximum(area(outer), TINY)
    union = ops.maximum(area(p) + area(t) - shared, TINY)
    return 1.0 - shared / union + (hull - union) / hull


BOX_LOSSES = ("l1", "smooth_l1", "giou")
# The published recipe of transformers weighs its GIoU loss so.
GIOU_WEIGHT = 10.0


def class_loss(regions: Regions, logits: Tensor) -> Tensor:
    """Compute the cross-entropy, a mean over sampled regions: `(N,)`."""
    apart = softmax(logits, regions.labels)
    apart = apart * ops.cast(regions.sampled, "float32")
    return ops.sum(apart, axis=1) * mean_share(regions.sampled)


def box_loss(
    regions: Regions, codes: Tensor, std: Sequence[float], kind: str
) -> Tensor:
    """Compute distances of the positives' boxes, a mean over sampled regions: `(N,)`.

    Args:
        regions: Sampled regions.
        codes: Codes `(N, S, K or 1, 4)`.
        std: Deviations of the codes.
        kind: One of `BOX_LOSSES`: of the codes, or of the boxes they mean.
    """
    # Background has no class of its own; what it reads is not counted.
    codes = of_class(codes, ops.minimum(regions.labels, codes.shape[2] - 1))
    if kind == "giou":
        moved = decode(regions.boxes, codes, std)
        apart = GIOU_WEIGHT * giou(moved, regions.objects)
    else:
        wanted = encode(regions.boxes, regions.objects, std)
        beta = 1.0 if kind == "smooth_l1" else 0.0
        apart = ops.sum(smooth_l1(codes, wanted, beta), axis=-1)
    apart = ops.where(regions.positive, apart, 0.0)
    return ops.sum(apart, axis=1) * mean_share(regions.sampled)


def mask_loss(regions: Regions, logits: Tensor, masks: Tensor) -> Tensor:
    """Compute the cross-entropy of the class's masks, a mean over positives: `(N,)`.

    Args:
        regions: Sampled regions, of which the first P can be positive.
        logits: Logits `(N, P, h, h, K)`.
        masks: Objects' masks `(N, M, S, S)`, each over its own box; of an object with
            values above 1, which has none, nothing is learned.
    """
    most, size, _, num_classes = logits.shape[1:]
    index = regions.index[:, :most]
    known = rows_of(ops.max(masks, axis=(2, 3)) <= 1, index)
    positive = ops.cast(ops.logical_and(regions.positive[:, :most], known), "float32")
    classes = ops.minimum(regions.labels[:, :most], num_classes - 1)
    wanted = mask_targets(
        regions.boxes[:, :most],
        regions.objects[:, :most],
        rows_of(masks, index),
        size,
    )
    apart = ops.mean(binary(masks_of(logits, classes), wanted), axis=(2, 3))
    return ops.sum(apart * positive, axis=1) * mean_share(positive)
