"""Classification as a task of the engines: cross-entropy, top-1 and top-5."""

import keras
from keras import ops

from kmlp.training.engine.engine import Task


class Classification(Task):
    """Learns classes from shares of them, under a teacher or without one.

    Args:
        objective: `objective(logits, targets, teacher_logits=None) -> (N,)`, the
            float32 loss of every sample, in `keras.ops`.
    """

    measures = ("loss", "accuracy")
    score = "top1"

    def __init__(self, objective):
        self.objective = objective

    def training(self, model, images, targets, taught=None):
        logits = ops.cast(model(images, training=True), "float32")
        losses = self.objective(logits, targets, taught)
        return losses, training_sums(losses, logits, targets)

    def evaluation(self, model, images, labels, weights):
        return evaluation_sums(model(images, training=False), labels, weights)

    def result(self, sums):
        """`{"loss", "top1", "top5", "count"}`: cross-entropy, and shares in 0…1."""
        loss, top1, top5, count = (float(value) for value in sums)
        share = max(count, 1.0)
        return {
            "loss": loss / share,
            "top1": top1 / share,
            "top5": top5 / share,
            "count": count,
        }


def training_sums(losses, logits, targets):
    """`(2,)` float32: the sum of losses, and how many classes were guessed right."""
    right = ops.equal(ops.argmax(logits, axis=-1), ops.argmax(targets, axis=-1))
    return ops.stack([ops.sum(losses), ops.sum(ops.cast(right, "float32"))])


def evaluation_sums(logits, labels, weights):
    """`(4,)` float32: sums of cross-entropy, top-1, top-5 and weights over a batch.

    Args:
        logits: `(N, classes)`; of equal logits the first class is ranked first, and a
            row with NaN is wrong.
        labels: `(N,)` integers.
        weights: `(N,)`, 0 for rows that do not count.
    """
    logits = ops.cast(logits, "float32")
    weights = ops.cast(weights, "float32")
    labels = ops.cast(labels, "int32")
    losses = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    own = ops.take_along_axis(logits, labels[:, None], axis=-1)
    before = ops.arange(logits.shape[-1], dtype="int32")[None] < labels[:, None]
    ahead = ops.logical_or(logits > own, ops.logical_and(logits == own, before))
    rank = ops.sum(ops.cast(ahead, "int32"), axis=-1)
    sound = ops.logical_not(ops.any(ops.isnan(logits), axis=-1))
    right = [ops.cast(ops.logical_and(rank < k, sound), "float32") for k in (1, 5)]
    # Padded rows may hold anything, NaN too.
    counts = weights > 0
    sums = [
        ops.sum(ops.where(counts, values * weights, 0.0)) for values in (losses, *right)
    ]
    return ops.stack([*sums, ops.sum(weights)])
