"""Which object an anchor or a proposal answers for, and which of them are learned."""

import keras
from keras import ops

from kmlp.detection.boxes import TINY


def match(iou, valid, positive, negative, low_quality=False, min_positive=0.0):
    """Assigns every anchor to an object, to the background, or to neither.

    An anchor is positive for the object it overlaps most, from IoU `positive` on, and
    negative below `negative`. With `low_quality` each object then takes the anchors
    of its own highest IoU (all that tie), whatever they had, if it is at least
    `min_positive` and not zero; of objects that claim the same anchor the last has it.

    Args:
        iou: `(N, A, M)` of anchors and objects.
        valid: `(N, M)` bool: false for padding, which matches nothing.
        positive, negative: thresholds.
        low_quality: whether objects keep their best anchors.
        min_positive: least IoU of those.

    Returns:
        index `(N, A)` int32 of the object (0 where there is none), and label `(N, A)`
        int32: 1 positive, 0 negative, -1 ignored. Neither passes gradients.

    Reference: Ren et al., Faster R-CNN, 2015, Sect. 3.1.2.
    """
    valid = ops.convert_to_tensor(valid, "bool")[:, None]  # (N, 1, M)
    iou = ops.stop_gradient(ops.convert_to_tensor(iou))
    iou = ops.where(valid, iou, -1.0)
    most = ops.max(iou, axis=2)
    index = ops.cast(ops.argmax(iou, axis=2), "int32")
    label = ops.where(most >= positive, 1, ops.where(most < negative, 0, -1))
    if low_quality:
        best = ops.max(iou, axis=1, keepdims=True)  # (N, 1, M)
        claims = ops.logical_and(best >= min_positive, best > 0)
        claims = ops.logical_and(claims, ops.equal(iou, best))
        objects = ops.arange(ops.shape(iou)[2], dtype="int32")
        claimed = ops.max(ops.where(claims, objects, -1), axis=2)
        index = ops.where(claimed >= 0, claimed, index)
        label = ops.where(claimed >= 0, 1, label)
    return ops.cast(index, "int32"), ops.cast(label, "int32")


def sample(label, count, positive_share, seed_generator):
    """A random choice of positives and negatives to learn from.

    At most `positive_share` of `count` are positive; negatives make up the rest, as
    far as there are any.

    Args:
        label: `(N, A)` as `match` gives it.
        count: number of samples of an image.
        positive_share: 0…1.
        seed_generator: `keras.random.SeedGenerator`.

    Returns:
        two `(N, A)` bools: the positives chosen, and the negatives.
    """
    noise = keras.random.uniform(ops.shape(label), seed=seed_generator)
    most = int(count * positive_share)
    ones = ops.full_like(label[:, :1], most)
    positives = _draw(ops.equal(label, 1), noise, most, ones)
    taken = ops.sum(ops.cast(positives, "int32"), axis=1, keepdims=True)
    negatives = _draw(ops.equal(label, 0), noise, count, count - taken)
    return positives, negatives


def _draw(among, noise, limit, wanted):
    """The `wanted` `(N, 1)` members (at most `limit`) of the highest noise."""
    if limit == 0:
        return ops.zeros_like(among)
    # Places beyond the end fill up where there are fewer than `limit`.
    length = ops.shape(among)[1]
    rest = ops.repeat(ops.full_like(noise[:, :1], -1.0), limit, axis=1)
    noise = ops.concatenate([ops.where(among, noise, -1.0), rest], axis=1)
    highest, index = ops.top_k(noise, limit)
    rank = ops.arange(limit, dtype="int32")[None]
    chosen = ops.logical_and(highest >= 0, rank < ops.cast(wanted, "int32"))
    rows, width = ops.shape(noise)[0], length + limit
    flat = ops.arange(rows, dtype="int32")[:, None] * width + ops.cast(index, "int32")
    marks = ops.reshape(ops.zeros_like(noise, dtype="int32"), (-1,))
    marks = ops.scatter_update(
        marks, ops.reshape(flat, (-1, 1)), ops.reshape(ops.cast(chosen, "int32"), (-1,))
    )
    return ops.cast(ops.reshape(marks, (-1, width))[:, :length], "bool")


def nms(boxes, scores, groups, threshold, limit):
    """The best boxes that do not repeat one another.

    The box of the highest score is picked, and what overlaps it by more than
    `threshold` in its own group goes; and so on with what remains.

    Args:
        boxes: `(N, C, 4)`.
        scores: `(N, C)`; candidates of score minus infinity are never picked.
        groups: `(N, C)` integers: boxes suppress only within their class or level.
        threshold: IoU above which the lower of two boxes goes.
        limit: number of picks.

    Returns:
        index `(N, limit)` int32 of the picks, best first, of equal scores the lowest
        index first; and `(N, limit)` bool, false (with index 0) where fewer remained.
        Neither passes gradients.
    """
    boxes = ops.stop_gradient(ops.convert_to_tensor(boxes, "float32"))
    scores = ops.stop_gradient(ops.convert_to_tensor(scores, "float32"))
    groups = ops.convert_to_tensor(groups, "int32")
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    areas = ops.maximum(x2 - x1, 0.0) * ops.maximum(y2 - y1, 0.0)
    places = ops.arange(ops.shape(scores)[1], dtype="int32")[None]
    slots = ops.arange(limit, dtype="int32")[None]
    none = ops.repeat(ops.zeros_like(scores[:, :1], dtype="int32"), limit, axis=1)

    def remain(step, scores, index, found):
        return ops.logical_and(step < limit, ops.any(scores > -float("inf")))

    def pick(step, scores, index, found):
        best = ops.cast(ops.argmax(scores, axis=1, keepdims=True), "int32")  # (N, 1)

        def of_best(values):
            return ops.take_along_axis(values, best, axis=1)

        there = of_best(scores) > -float("inf")
        width = ops.minimum(x2, of_best(x2)) - ops.maximum(x1, of_best(x1))
        height = ops.minimum(y2, of_best(y2)) - ops.maximum(y1, of_best(y1))
        shared = ops.maximum(width, 0.0) * ops.maximum(height, 0.0)
        union = ops.maximum(areas + of_best(areas) - shared, TINY)
        repeats = ops.logical_and(
            shared / union > threshold, ops.equal(groups, of_best(groups))
        )
        gone = ops.logical_or(repeats, ops.equal(places, best))
        scores = ops.where(gone, -float("inf"), scores)
        here = ops.logical_and(ops.equal(slots, step), there)
        index = ops.where(here, best, index)
        return step + 1, scores, index, ops.logical_or(found, here)

    step = ops.zeros((), dtype="int32")
    start = (step, scores, none, ops.cast(none, "bool"))
    _, _, index, found = ops.while_loop(remain, pick, start)
    return index, found
