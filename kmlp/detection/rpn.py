"""The region proposal network: where objects may be, whatever they are."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kmlp.detection import detection_losses
from kmlp.detection.boxes import Anchors, area, encode, iou
from kmlp.detection.detections import best_of_level
from kmlp.detection.regions import (
    Sampler,
    match,
    mean_share,
    nms,
    objects_of,
    rows_of,
)
from kmlp.layers.layer import Layer
from kmlp.typing import Shape, Tensor

# IoU from which an anchor is an object, below which it is none, and which the best
# anchor of an object needs.
POSITIVE, NEGATIVE = 0.7, 0.3


@keras.saving.register_keras_serializable("kmlp")
class Proposals(Layer):
    """The best boxes of all levels: the candidates of each, less those that repeat.

    Args:
        scales, ratios, strides: Arguments of the `Anchors`.
        candidates: Best anchors of a level that are looked at.
        count: Proposals of an image.
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

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        images, *maps = inputs
        size = ops.shape(images)[1:3]
        maps = [ops.stop_gradient(ops.cast(x, "float32")) for x in maps]
        objectness, deltas = maps[: len(self.strides)], maps[len(self.strides) :]
        anchors = self.anchors.boxes([ops.shape(x)[1:3] for x in objectness])
        found = []
        for level, of_level in enumerate(zip(objectness, deltas, anchors)):
            boxes, scores, _ = best_of_level(*of_level, self.candidates, size)
            scores = ops.where(area(boxes) > 0, scores, -float("inf"))
            found.append((boxes, scores, ops.full_like(scores, level, dtype="int32")))
        boxes, scores, levels = (ops.concatenate(x, axis=1) for x in zip(*found))
        index, valid = nms(boxes, scores, levels, self.threshold, self.count)
        return ops.where(valid[..., None], rows_of(boxes, index), 0.0)

    def compute_output_spec(self, inputs: Sequence[Tensor]) -> Tensor:
        shape = self.compute_output_shape([x.shape for x in inputs])
        return keras.KerasTensor(shape, dtype="float32")

    def compute_output_shape(self, input_shape: Any) -> Shape:
        return (input_shape[0][0], self.count, 4)


def rpn_losses(
    objectness: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Anchors,
    targets: dict[str, Tensor],
    sampler: Sampler,
    beta: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Compute losses of objectness and boxes, each a mean over all sampled anchors.

    Args:
        objectness, deltas: Maps of all levels, as `RPNHead` gives them.
        anchors: Anchors of the levels.
        targets: Targets `{"boxes": (N, M, 4), "classes": (N, M)}`.
        sampler: Choice of anchors to learn from.
        beta: Bound of the smooth L1 loss of boxes; 0: L1.

    Returns:
        Two float32 `(N,)`: their means over images are the means over the batch's
        samples.
    """
    boxes = ops.concatenate(anchors.boxes([ops.shape(x)[1:3] for x in objectness]))
    logits = detection_losses.flat(objectness, 1)[..., 0]
    codes = detection_losses.flat(deltas, 4)
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
    errors = detection_losses.binary(logits, positives) * sampled
    wanted = encode(boxes, rows_of(objects, index))
    apart = detection_losses.smooth_l1(codes, wanted, beta) * positives[..., None]
    return ops.sum(errors, axis=1) * share, ops.sum(apart, axis=(1, 2)) * share
