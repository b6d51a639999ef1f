"""Losses of predictions, element by element; sums and normalisers are the models'."""

from keras import ops

from kmlp.detection.boxes import TINY, area


def binary(logits, targets):
    """Cross-entropy of logits with targets in 0…1, of any equal shape."""
    softplus = ops.log1p(ops.exp(-ops.abs(logits)))
    return ops.maximum(logits, 0.0) - logits * targets + softplus


def softmax(logits, labels):
    """Cross-entropy of logits `(…, K)` with integer labels `(…,)`."""
    labels = ops.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return -ops.sum(labels * ops.log_softmax(logits, axis=-1), axis=-1)


def focal(logits, targets, gamma=2.0, alpha=0.25):
    """Binary cross-entropy that fades where the prediction is already right.

    Args:
        logits, targets: of equal shapes; targets are 0 or 1.
        gamma: power of the fading; 0 gives the balanced cross-entropy.
        alpha: weight of the targets 1; those of 0 weigh `1 - alpha`.

    Reference: Lin et al., Focal Loss for Dense Object Detection, 2017, Eq. 5.
    """
    # The probability of the wrong answer, 1 - p_t: exact where p_t is close to 1.
    wrong = ops.sigmoid(ops.where(targets > 0.5, -logits, logits))
    weight = ops.where(targets > 0.5, alpha, 1.0 - alpha)
    fading = wrong**gamma if gamma else 1.0
    return weight * fading * binary(logits, targets)


def l1(predictions, targets):
    """Absolute differences."""
    return ops.abs(predictions - targets)


def smooth_l1(predictions, targets, beta=1.0 / 9):
    """Absolute differences, quadratic below `beta`.

    Reference: Girshick, Fast R-CNN, 2015, Eq. 3.
    """
    distance = ops.abs(predictions - targets)
    # Bounded, so that the branch not taken gives no large gradients.
    near = ops.minimum(distance, beta)
    return ops.where(distance < beta, 0.5 * near * near / beta, distance - 0.5 * beta)


def giou(predictions, targets):
    """One minus the generalised IoU of boxes `(…, 4)`, pair by pair: `(…,)`.

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
