"""The region proposal network: where objects may be, whatever they are."""

import math

import keras
from keras import ops

from kmlp.detection import detection_losses
from kmlp.detection.boxes import Anchors, area, decode, encode, iou
from kmlp.detection.regions import match, mean_share, nms, objects_of, rows_of
from kmlp.layers.layer import Layer

# IoU from which an anchor is an object, below which it is none, and which the best
# anchor of an object needs.
POSITIVE, NEGATIVE = 0.7, 0.3


@keras.saving.register_keras_serializable("kmlp")
class Proposals(Layer):
    """The best boxes of all levels: the candidates of each, less those that repeat.

    Args:
        scales, ratios, strides: of the `Anchors`.
        candidates: best anchors of a level that are looked at.
        count: proposals of an image.
        threshold: IoU above which the lower of two candidates of a level goes.

    Shapes: a list of the images, the objectness of all levels and the boxes of all
    levels, as `RPNHead` gives them, to boxes `(N, count, 4)` in pixels, best first
    and within the image; zeros where there are fewer.
    """

    def __init__(
        self, scales, ratios, strides, *, candidates, count, threshold=0.7, **kwargs
    ):
        super().__init__(**kwargs)
        self.anchors = Anchors(self.scales, self.ratios, self.strides)

    def call(self, inputs):
        images, *rest = inputs
        size = ops.shape(images)[1:3]
        objectness, deltas = rest[: len(self.strides)], rest[len(self.strides) :]
        anchors = self.anchors.boxes([ops.shape(x)[1:3] for x in objectness])
        found = [
            self._candidates(*level, size) for level in zip(objectness, deltas, anchors)
        ]
        boxes = ops.concatenate([boxes for boxes, _ in found], axis=1)
        scores = ops.concatenate([scores for _, scores in found], axis=1)
        levels = ops.concatenate(
            [ops.full_like(s, i, dtype="int32") for i, (_, s) in enumerate(found)],
            axis=1,
        )
        index, valid = nms(boxes, scores, levels, self.threshold, self.count)
        return ops.where(valid[..., None], rows_of(boxes, index), 0.0)

    def _candidates(self, objectness, deltas, anchors, size):
        """Boxes `(N, k, 4)` and scores `(N, k)` of a level's best anchors."""
        known = None not in objectness.shape[1:]
        # Said, not left to `-1`: a graph does not infer it where the batch is open.
        places = math.prod(objectness.shape[1:]) if known else -1
        scores = ops.stop_gradient(ops.cast(objectness, "float32"))
        deltas = ops.stop_gradient(ops.cast(deltas, "float32"))
        scores = ops.reshape(scores, (ops.shape(scores)[0], places))
        deltas = ops.reshape(deltas, (ops.shape(deltas)[0], places, 4))
        limit = self.candidates
        if known:
            limit = min(limit, places)
        else:
            # The number is a constant of the graph, whatever the image's size.
            scores = ops.pad(
                scores, [[0, 0], [0, limit]], constant_values=-float("inf")
            )
            deltas = ops.pad(deltas, [[0, 0], [0, limit], [0, 0]])
            anchors = ops.pad(anchors, [[0, limit], [0, 0]])
        scores, index = ops.top_k(scores, limit)
        index = ops.cast(index, "int32")
        anchors = ops.take(anchors, index, axis=0)
        boxes = decode(anchors, rows_of(deltas, index), size=size)
        return boxes, ops.where(area(boxes) > 0, scores, -float("inf"))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(
            self.compute_output_shape([x.shape for x in inputs]), dtype="float32"
        )

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], self.count, 4)


def flat(maps, width):
    """Predictions of all levels `(N, H, W, A · width)` as float32 `(N, all, width)`."""
    maps = [ops.cast(x, "float32") for x in maps]
    return ops.concatenate(
        [ops.reshape(x, (ops.shape(x)[0], -1, width)) for x in maps], axis=1
    )


def rpn_losses(objectness, deltas, anchors, targets, sampler, beta=0.0):
    """Losses of objectness and boxes, each a mean over all sampled anchors.

    Args:
        objectness, deltas: of all levels, as `RPNHead` gives them.
        anchors: `Anchors`.
        targets: `{"boxes": (N, M, 4), "classes": (N, M)}`.
        sampler: a `Sampler`.
        beta: of the smooth L1 loss of boxes; 0: L1.

    Returns:
        two float32 `(N,)`: their means over images are the means over the batch's
        samples.
    """
    boxes = ops.concatenate(anchors.boxes([ops.shape(x)[1:3] for x in objectness]))
    logits, codes = flat(objectness, 1)[..., 0], flat(deltas, 4)
    objects, _, valid = objects_of(targets)
    index, label = match(
        iou(boxes, objects),
        valid,
        POSITIVE,
        NEGATIVE,
        low_quality=True,
        min_positive=NEGATIVE,
    )
    positives, negatives = (ops.cast(x, "float32") for x in sampler(label))
    sampled = positives + negatives
    share = mean_share(sampled)
    objectness = detection_losses.binary(logits, positives) * sampled
    wanted = encode(boxes, rows_of(objects, index))
    apart = detection_losses.distance(codes, wanted, beta) * positives[..., None]
    return ops.sum(objectness, axis=1) * share, ops.sum(apart, axis=(1, 2)) * share
