"""Regions that the second stage learns from: which ones, and what they should say."""

import dataclasses
from typing import Any

import keras
from keras import ops

from kmlp.detection.boxes import area, iou
from kmlp.detection.suppression import match, sample
from kmlp.layers.layer import Layer


def rows_of(values, index):
    """What images have at places: `(N, A, …)` at `(N, B)` int32 gives `(N, B, …)`."""
    batch, count, *_ = ops.shape(values)
    rest = tuple(values.shape[2:])
    places = index + ops.arange(batch, dtype="int32")[:, None] * count
    found = ops.take(
        ops.reshape(values, (-1, *rest)), ops.reshape(places, (-1,)), axis=0
    )
    return ops.reshape(found, (-1, ops.shape(index)[1], *rest))


def objects_of(targets):
    """The objects of images: boxes `(N, M, 4)`, classes and whether each is one.

    Padding has class -1; boxes without area are nothing to learn from either.
    """
    boxes = ops.cast(targets["boxes"], "float32")
    classes = ops.cast(targets["classes"], "int32")
    return boxes, classes, ops.logical_and(classes >= 0, area(boxes) > 0)


@keras.saving.register_keras_serializable("kmlp")
class Sampler(Layer):
    """A random choice of positives and negatives, with a random state of its own.

    Args:
        count: samples of an image.
        positive_share: the largest share of positives, 0…1.

    Shapes: labels `(N, A)` of `match` to two bools `(N, A)`.
    """

    arguments = ("count", "positive_share")

    def __init__(self, count, positive_share, **kwargs):
        super().__init__(**kwargs)
        self.count = count
        self.positive_share = positive_share
        self.seed_generator = keras.random.SeedGenerator()

    @property
    def most_positive(self):
        """The largest number of positives of an image."""
        return int(self.count * self.positive_share)

    def call(self, label):
        return sample(label, self.count, self.positive_share, self.seed_generator)


def mean_share(sampled):
    """What a sum over an image's samples is multiplied with, `sampled` `(N, A)`.

    The mean over images of such products is the mean over the batch's samples.
    """
    sampled = ops.cast(sampled, "float32")
    images = ops.cast(ops.shape(sampled)[0], "float32")
    return images / ops.maximum(ops.sum(sampled), 1.0)


@dataclasses.dataclass(frozen=True)
class Regions:
    """Sampled regions of images, positives first; S is the sampler's count.

    Attributes:
        boxes: `(N, S, 4)`; zeros where there were fewer than S.
        positive: `(N, S)` bool, whether a region answers for an object.
        sampled: `(N, S)` bool, whether a region is learned from.
        is_object: `(N, S)` bool, whether a region is an object's own box.
        index: `(N, S)` int32, its object.
        labels: `(N, S)` int32, the object's class, `num_classes` for background.
        objects: `(N, S, 4)`, the object's box.
    """

    boxes: Any
    positive: Any
    sampled: Any
    is_object: Any
    index: Any
    labels: Any
    objects: Any


def sample_regions(proposals, targets, sampler, *, positive, num_classes):
    """Draws regions from proposals and the objects' own boxes.

    Args:
        proposals: `(N, R, 4)`; those without area are padding.
        targets: `{"boxes": (N, M, 4), "classes": (N, M)}`.
        sampler: a `Sampler`.
        positive: IoU from which a region answers for its object; below, it is
            background.
        num_classes: the background's label.

    Returns:
        `Regions`, through which nothing is learned.

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

    def drawn(values, width=()):
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


def mask_targets(regions, objects, masks, size):
    """Masks of objects as their regions see them.

    Args:
        regions: `(N, P, 4)`.
        objects: `(N, P, 4)`, the boxes that the masks lie in.
        masks: `(N, P, S, S)`, 0 or 1, each over its object's box.
        size: positions per axis of the result.

    Returns:
        float32 0 or 1, `(N, P, size, size)`: the mask at the centre of each position,
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
    """Weights `(N, P, size, positions)` of an axis' bilinear reading."""
    low, high = regions[..., axis, None], regions[..., axis + 2, None]
    start, end = objects[..., axis, None], objects[..., axis + 2, None]
    share = (ops.arange(size, dtype="float32") + 0.5) / size
    place = (low + (high - low) * share - start) / ops.maximum(end - start, 1e-6)
    inside = ops.logical_and(place >= 0, place <= 1)
    place = ops.clip(place * positions - 0.5, 0.0, positions - 1.0)
    centres = ops.arange(positions, dtype="float32")
    weights = ops.maximum(1.0 - ops.abs(place[..., None] - centres), 0.0)
    return weights * ops.cast(inside, "float32")[..., None]
