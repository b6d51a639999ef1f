"""Greedy non-maximum suppression of static shape."""

from keras import ops

from kmlp.detection.boxes import TINY


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
