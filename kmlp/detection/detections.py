"""Turn the heads' outputs at places and regions into detections, inside the graph."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from kmlp.detection.boxes import Anchors, area, decode
from kmlp.detection.regions import nms, rows_of
from kmlp.layers.layer import Layer
from kmlp.typing import Shape, Tensor


def of_class(values: Tensor, classes: Tensor) -> Tensor:
    """Return a class's part of predictions `(…, K, W)`: `(…, W)`; if K is 1, that."""
    if values.shape[-2] == 1:
        return values[..., 0, :]
    chosen = ops.one_hot(classes, values.shape[-2], dtype=values.dtype)
    return ops.sum(values * chosen[..., None], axis=-2)


def masks_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the class's masks of regions, `(N, P, h, w, K)` to `(N, P, h, w)`."""
    chosen = ops.one_hot(classes, logits.shape[-1], dtype=logits.dtype)
    return ops.einsum("nphwk,npk->nphw", logits, chosen)


def likeliest(logits: Tensor) -> Tensor:
    """Return the best class of regions that is not the background."""
    return ops.argmax(logits[..., :-1], axis=-1)


def refine(
    boxes: Tensor, codes: Tensor, classes: Tensor, std: Sequence[float], size: Shape
) -> Tensor:
    """Move boxes as a head says for a class; those without area stay zeros."""
    moved = decode(boxes, of_class(codes, classes), std, size)
    return ops.stop_gradient(ops.where(area(boxes)[..., None] > 0, moved, 0.0))


def best_of_level(
    scores: Tensor, codes: Tensor, anchors: Tensor, limit: int, size: Shape
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the candidates of a level with the highest scores.

    Args:
        scores: Scores `(N, h, w, A·K)` of pairs of anchor and class; minus infinity
            where there is no candidate.
        codes: Codes `(N, h, w, A·4)`.
        anchors: Anchors `(h·w·A, 4)`.
        limit: Number of candidates; fewer on a map that is known to be smaller.
        size: Height and width that boxes are clipped to.

    Returns:
        Boxes `(N, k, 4)`, scores `(N, k)` and numbers of the pairs `(N, k)` int32.
    """
    classes = 4 * scores.shape[-1] // codes.shape[-1]
    known = None not in scores.shape[1:]
    # Said, not left to `-1`: a graph does not infer it where the batch is open.
    pairs = math.prod(scores.shape[1:]) if known else -1
    places = pairs // classes if known else -1
    scores = ops.reshape(scores, (ops.shape(scores)[0], pairs))
    codes = ops.cast(ops.reshape(codes, (ops.shape(codes)[0], places, 4)), "float32")
    if known:
        limit = min(limit, pairs)
    else:
        # The number is a constant of the graph, whatever the image's size.
        padding = [[0, 0], [0, limit]]
        scores = ops.pad(scores, padding, constant_values=-float("inf"))
    scores, index = ops.top_k(scores, limit)
    index = ops.cast(index, "int32")
    anchor = ops.minimum(index // classes, ops.shape(anchors)[0] - 1)
    boxes = decode(ops.take(anchors, anchor, axis=0), rows_of(codes, anchor), size=size)
    return boxes, scores, index


def _best(boxes, scores, classes, threshold, count):
    """Return the best boxes, less those that repeat one of their class."""
    index, there = nms(boxes, scores, classes, threshold, count)
    return {
        "boxes": ops.where(there[..., None], rows_of(boxes, index), 0.0),
        "scores": ops.where(there, rows_of(scores, index), 0.0),
        "classes": ops.where(there, rows_of(classes, index), -1),
    }


def _spec(images, count):
    shape = (images.shape[0], count)
    return {
        "boxes": keras.KerasTensor((*shape, 4), dtype="float32"),
        "scores": keras.KerasTensor(shape, dtype="float32"),
        "classes": keras.KerasTensor(shape, dtype="int32"),
    }


@keras.saving.register_keras_serializable("kmlp")
class Refine(Layer):
    """A cascade's next regions: boxes moved as a stage says for their likeliest class.

    Args:
        std: Deviations of the boxes' codes.

    Shapes: a list of the images, boxes `(N, R, 4)`, logits and codes of a `BoxHead`
    to boxes `(N, R, 4)`.
    """

    def __init__(self, std, **kwargs):
        super().__init__(**kwargs)

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        images, boxes, logits, codes = inputs
        size = ops.shape(images)[1:3]
        return refine(boxes, codes, likeliest(logits), self.std, size)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        return tuple(input_shape[1])


@keras.saving.register_keras_serializable("kmlp")
class Detections(Layer):
    """The best boxes of regions over all classes, without repetitions.

    Args:
        std: Deviations of the boxes' codes.
        score_threshold: Probability above which a box counts.
        nms_threshold: IoU above which the lower of two boxes of a class goes.
        count: Detections of an image, D.

    Shapes: a list of the images, boxes `(N, R, 4)` (those without area are padding),
    codes `(N, R, K or 1, 4)` and, from one stage or more, logits `(N, R, K + 1)`,
    whose mean counts, to a dictionary of `boxes` `(N, D, 4)`, `scores` `(N, D)` and
    `classes` `(N, D)` int32: best first, then zeros of class -1.
    """

    def __init__(self, std, *, score_threshold, nms_threshold, count, **kwargs):
        super().__init__(**kwargs)

    def call(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        images, regions, codes, *logits = inputs
        scores = ops.softmax(sum(logits) / len(logits))[..., :-1]  # (N, R, K)
        classes = scores.shape[-1]
        size = ops.shape(images)[1:3]
        boxes = decode(regions[:, :, None], codes, self.std, size)
        boxes = ops.repeat(boxes, classes // boxes.shape[2], axis=2)  # (N, R, K, 4)
        real = ops.logical_and(area(regions)[..., None] > 0, area(boxes) > 0)
        real = ops.logical_and(real, scores > self.score_threshold)

        candidates = regions.shape[1] * classes
        boxes = ops.reshape(boxes, (-1, candidates, 4))
        scores = ops.where(real, scores, -float("inf"))
        scores = ops.reshape(scores, (-1, candidates))
        groups = ops.arange(candidates, dtype="int32") % classes
        groups = groups[None] + ops.zeros_like(scores, dtype="int32")
        return _best(boxes, scores, groups, self.nms_threshold, self.count)

    def compute_output_spec(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        return _spec(inputs[0], self.count)


@keras.saving.register_keras_serializable("kmlp")
class ClassMasks(Layer):
    """Masks of detections: probabilities of the class detected.

    Shapes: a list of the classes `(N, D)` and, from one stage or more, logits
    `(N, D, h, w, K)`, whose probabilities are averaged, to `(N, D, h, w)`; zeros
    where there is no detection.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        classes, *logits = inputs
        masks = [ops.sigmoid(masks_of(x, classes)) for x in logits]
        return ops.where(classes[..., None, None] >= 0, sum(masks) / len(masks), 0.0)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        return tuple(input_shape[1][:-1])


@keras.saving.register_keras_serializable("kmlp")
class DenseDetections(Layer):
    """The best boxes of all levels, without repetitions.

    Of each level the pairs of anchor and class with the highest scores, of those
    above a threshold; their boxes, clipped to the image; suppression within each
    class over all levels. Geometry and scores are float32 under any policy.

    Args:
        num_classes: Number of classes K.
        scales, ratios, strides: Arguments of the `Anchors`.
        candidates: Pairs kept of each level.
        score_threshold: Score up to which a pair is dropped.
        nms_threshold: IoU above which the lower of two boxes of a class goes.
        max_detections: Detections of an image, D.

    Shapes: a dict of `images` `(N, H, W, 3)`, `class`, a list of logits
    `(N, h, w, A·K)`, and `box`, a list of codes `(N, h, w, A·4)`, to a dict of
    `boxes` `(N, D, 4)`, `scores` `(N, D)`, and `classes` `(N, D)` int32: best first;
    empty places have class -1, score 0 and a box of zeros.
    """

    def __init__(
        self,
        num_classes,
        *,
        scales,
        ratios,
        strides,
        candidates=1000,
        score_threshold=0.05,
        nms_threshold=0.5,
        max_detections=100,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._anchors = Anchors(self.scales, self.ratios, self.strides)

    def build(self, input_shape: Mapping[str, Shape]) -> None:
        self.built = True

    def call(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        size = ops.shape(inputs["images"])[1:3]
        anchors = self._anchors.boxes([ops.shape(x)[1:3] for x in inputs["class"]])
        found = []
        for logits, codes, places in zip(inputs["class"], inputs["box"], anchors):
            scores = ops.sigmoid(ops.cast(logits, "float32"))
            scores = ops.where(scores > self.score_threshold, scores, -float("inf"))
            boxes, scores, pairs = best_of_level(
                scores, codes, places, self.candidates, size
            )
            found.append((boxes, scores, pairs % self.num_classes))
        boxes, scores, classes = (ops.concatenate(x, axis=1) for x in zip(*found))
        return _best(boxes, scores, classes, self.nms_threshold, self.max_detections)

    def compute_output_spec(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return _spec(inputs["images"], self.max_detections)
