"""Choose the boxes that count: matching, sampling, suppression, regions' targets."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kmlp.detection.boxes import TINY, area, iou
from kmlp.layers.layer import Layer
from kmlp.typing import Tensor


def match(
    iou: Tensor,
    valid: Tensor,
    positive: float,
    negative: float,
    low_quality: bool = False,
    min_positive: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Assign every anchor to an object, to the background, or to neither.

    An anchor is positive for the object it overlaps most, from IoU `positive` on, and
    negative below `negative`. With `low_quality` each object then takes the anchors
    of its own highest IoU (all that tie), whatever they had, if it is at least
    `min_positive` and not zero; of objects that claim the same anchor the last has it.

    Args:
        iou: Overlaps `(N, A, M)` of anchors and objects.
        valid: Validity `(N, M)`, bool: false for padding, which matches nothing.
        positive, negative: Thresholds.
        low_quality: Whether objects keep their best anchors.
        min_positive: Least IoU of those.

    Returns:
        Index `(N, A)` int32 of the object (0 where there is none), and label `(N, A)`
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


def sample(
    label: Tensor,
    count: int,
    positive_share: float,
    seed_generator: keras.random.SeedGenerator,
) -> tuple[Tensor, Tensor]:
    """Choose at random positives and negatives to learn from.

    At most `positive_share` of `count` are positive; negatives make up the rest, as
    far as there are any.

    Args:
        label: Labels `(N, A)` as `match` gives them.
        count: Number of samples of an image.
        positive_share: Largest share of positives, 0…1.
        seed_generator: Random state.

    Returns:
        Two `(N, A)` bools: the positives chosen, and the negatives.
    """
    noise = keras.random.uniform(ops.shape(label), seed=seed_generator)
    most = int(count * positive_share)
    ones = ops.full_like(label[:, :1], most)
    positives = _draw(ops.equal(label, 1), noise, most, ones)
    taken = ops.sum(ops.cast(positives, "int32"), axis=1, keepdims=True)
    negatives = _draw(ops.equal(label, 0), noise, count, count - taken)
    return positives, negatives


def _draw(among, noise, limit, wanted):
    """Return the `wanted` `(N, 1)` members (at most `limit`) of the highest noise."""
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


def nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    """Return the best boxes that do not repeat one another.

    The box of the highest score is picked, and what overlaps it by more than
    `threshold` in its own group goes; and so on with what remains.

    Args:
        boxes: Boxes `(N, C, 4)`.
        scores: Scores `(N, C)`; candidates of score minus infinity are never picked.
        groups: Groups `(N, C)`, integers: boxes suppress only within their class or
            level.
        threshold: IoU above which the lower of two boxes goes.
        limit: Number of picks.

    Returns:
        Index `(N, limit)` int32 of the picks, best first, of equal scores the lowest
        index first; and `(N, limit)` bool, false (with index 0) where fewer remained.
        Neither passes gradients.
    """
    boxes = ops.stop_gradient(ops.convert_to_tensor(boxes, "float32"))
    scores = ops.stop_gradient(ops.convert_to_tensor(scores, "float32"))
    groups = ops.convert_to_tensor(groups, "int32")
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    areas = area(boxes)
    places = ops.arange(ops.shape(scores)[1], dtype="int32")[None]
    slots = ops.arange(limit, dtype="int32")[None]
    none = ops.repeat(ops.zeros_like(scores[:, :1], dtype="int32"), limit, axis=1)

    def remain(step: Tensor, scores: Tensor, *_: Tensor) -> Tensor:
        return ops.logical_and(step < limit, ops.any(scores > -float("inf")))

    def pick(step: Tensor, scores: Tensor, index: Tensor, found: Tensor) -> Any:
        best = ops.cast(ops.argmax(scores, axis=1, keepdims=True), "int32")  # (N, 1)

        def of_best(values: Tensor) -> Tensor:
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


def rows_of(values: Tensor, index: Tensor) -> Tensor:
    """Return rows of images: `(N, A, …)` at `(N, B)` int32 gives `(N, B, …)`."""
    batch, count, *_ = ops.shape(values)
    rest = tuple(values.shape[2:])
    places = index + ops.arange(batch, dtype="int32")[:, None] * count
    found = ops.take(
        ops.reshape(values, (-1, *rest)), ops.reshape(places, (-1,)), axis=0
    )
    return ops.reshape(found, (-1, ops.shape(index)[1], *rest))


def objects_of(targets: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the objects of images: boxes `(N, M, 4)`, classes and whether each is one.

    Padding has class -1; boxes without area are nothing to learn from either.
    """
    boxes = ops.cast(targets["boxes"], "float32")
    classes = ops.cast(targets["classes"], "int32")
    return boxes, classes, ops.logical_and(classes >= 0, area(boxes) > 0)


@keras.saving.register_keras_serializable("kmlp")
class Sampler(Layer):
    """A random choice of positives and negatives, with a random state of its own.

    Args:
        count: Samples of an image.
        positive_share: Largest share of positives, 0…1.

    Shapes: labels `(N, A)` of `match` to two bools `(N, A)`.
    """

    def __init__(self, count, positive_share, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator()

    @property
    def most_positive(self) -> int:
        """Return the largest number of positives of an image."""
        return int(self.count * self.positive_share)

    def call(self, label: Tensor) -> tuple[Tensor, Tensor]:
        return sample(label, self.count, self.positive_share, self.seed_generator)


def mean_share(sampled: Tensor) -> Tensor:
    """Return the factor of a sum over an image's samples, `sampled` `(N, A)`.

    The mean over images of such products is the mean over the batch's samples.
    """
    sampled = ops.cast(sampled, "float32")
    images = ops.cast(ops.shape(sampled)[0], "float32")
    return images / ops.maximum(ops.sum(sampled), 1.0)


@dataclasses.dataclass(frozen=True)
class Regions:
    """Sampled regions of images, positives first; S is the sampler's count.

    Attributes:
        boxes: Boxes `(N, S, 4)`; zeros where there were fewer than S.
        positive: Marks `(N, S)`, bool: whether a region answers for an object.
        sampled: Marks `(N, S)`, bool: whether a region is learned from.
        is_object: Marks `(N, S)`, bool: whether a region is an object's own box.
        index: Number `(N, S)` of the region's object, int32.
        labels: Object's class `(N, S)`, int32, `num_classes` for background.
        objects: Object's box `(N, S, 4)`.
    """

    boxes: Tensor
    positive: Tensor
    sampled: Tensor
    is_object: Tensor
    index: Tensor
    labels: Tensor
    objects: Tensor


def sample_regions(
    proposals: Tensor,
    targets: dict[str, Tensor],
    sampler: Sampler,
    *,
    positive: float,
    num_classes: int,
) -> Regions:
    """Draw regions from proposals and the objects' own boxes.

    Args:
        proposals: Proposals `(N, R, 4)`; those without area are padding.
        targets: Targets `{"boxes": (N, M, 4), "classes": (N, M)}`.
        sampler: Random choice of regions.
        positive: IoU from which a region answers for its object; below, it is
            background.
        num_classes: Label of the background.

    Returns:
        The `Regions`, through which nothing is learned.

    Reference: Faster R-CNN, Sect. 3.2, and Fast R-CNN, Sect. 2.3; the reference
    framework adds the objects' boxes, so that there are positives from the start.
    """
    objects, classes, valid = objects_of(targets)
    proposals = ops.stop_gradient(ops.cast(proposals, "float32"))
    boxes = ops.concatenate([proposals, objects], axis=1)
    index, label = match(iou(boxes, objects), valid, positive, positive)
    usable = ops.concatenate([area(proposals) > 0, valid], axis=1)
    label = ops.where(usable, label, -1)
    none = ops.zeros_like(proposals[..., 0], dtype="int32")
    is_object = ops.concatenate([none, ops.cast(valid, "int32")], axis=1)
    positives, negatives = sampler(label)

    # Positives come first: what learns from them alone reads the first places.
    order = 2 * ops.cast(positives, "int32") + ops.cast(negatives, "int32")
    count = boxes.shape[1]
    padding = sampler.count if count is None else max(sampler.count - count, 0)
    order = ops.pad(order, [[0, 0], [0, padding]])
    rank, chosen = ops.top_k(order, sampler.count)
    chosen = ops.cast(chosen, "int32")

    def drawn(values: Tensor, width: Sequence = ()) -> Tensor:
        values = ops.pad(values, [[0, 0], [0, padding], *width])
        return rows_of(values, chosen)

    sampled = rank > 0
    positive = rank > 1
    index = drawn(index)
    return Regions(
        boxes=ops.where(sampled[..., None], drawn(boxes, [[0, 0]]), 0.0),
        positive=positive,
        sampled=sampled,
        is_object=ops.logical_and(drawn(is_object) > 0, sampled),
        index=index,
        labels=ops.where(positive, rows_of(classes, index), num_classes),
        objects=rows_of(objects, index),
    )


def mask_targets(regions: Tensor, objects: Tensor, masks: Tensor, size: int) -> Tensor:
    """Return masks of objects as their regions see them.

    Args:
        regions: Regions `(N, P, 4)`.
        objects: Boxes `(N, P, 4)` that the masks lie in.
        masks: Masks `(N, P, S, S)`, 0 or 1, each over its object's box.
        size: Positions per axis of the result.

    Returns:
        Float32 0 or 1, `(N, P, size, size)`: the mask at the centre of each position,
        bilinear between its own centres, from one half on; 0 outside its box.
    """
    regions, objects = (ops.cast(x, "float32") for x in (regions, objects))
    rows = _readings(regions, objects, 1, masks.shape[-2], size)
    columns = _readings(regions, objects, 0, masks.shape[-1], size)
    masks = ops.cast(masks, "float32")
    values = ops.matmul(ops.matmul(rows, masks), ops.transpose(columns, (0, 1, 3, 2)))
    # A half of rounding counts as a half.
    return ops.cast(values >= 0.5 - 1e-4, "float32")


def _readings(regions, objects, axis, positions, size):
    """Return an axis' weights of bilinear reading, `(N, P, size, positions)`."""
    low, high = regions[..., axis, None], regions[..., axis + 2, None]
    start, end = objects[..., axis, None], objects[..., axis + 2, None]
    share = (ops.arange(size, dtype="float32") + 0.5) / size
    place = (low + (high - low) * share - start) / ops.maximum(end - start, 1e-6)
    inside = ops.logical_and(place >= 0, place <= 1)
    place = ops.clip(place * positions - 0.5, 0.0, positions - 1.0)
    centres = ops.arange(positions, dtype="float32")
    weights = ops.maximum(1.0 - ops.abs(place[..., None] - centres), 0.0)
    return weights * ops.cast(inside, "float32")[..., None]
