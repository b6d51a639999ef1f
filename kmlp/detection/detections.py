"""From what the second stage says of proposals to detections, inside the graph."""

import keras
from keras import ops

from kmlp.detection.boxes import Anchors, area, decode
from kmlp.detection.regions import nms, rows_of
from kmlp.layers.layer import Layer


def of_class(values, classes):
    """A class's part of predictions `(…, K, W)`: `(…, W)`; of a K of 1, that one."""
    if values.shape[-2] == 1:
        return values[..., 0, :]
    chosen = ops.one_hot(classes, values.shape[-2], dtype=values.dtype)
    return ops.sum(values * chosen[..., None], axis=-2)


def likeliest(logits):
    """The best class of regions that is not the background."""
    return ops.argmax(logits[..., :-1], axis=-1)


def refine(boxes, codes, classes, std, size):
    """Boxes moved as a head says for a class; those without area stay zeros."""
    moved = decode(boxes, of_class(codes, classes), std, size)
    return ops.stop_gradient(ops.where(area(boxes)[..., None] > 0, moved, 0.0))


@keras.saving.register_keras_serializable("kmlp")
class Refine(Layer):
    """A cascade's next regions: boxes moved as a stage says for their likeliest class.

    Args:
        std: of the boxes' codes.

    Shapes: a list of the images, boxes `(N, R, 4)`, logits and codes of a `BoxHead`
    to boxes `(N, R, 4)`.
    """

    def __init__(self, std, **kwargs):
        super().__init__(**kwargs)

    def call(self, inputs):
        images, boxes, logits, codes = inputs
        size = ops.shape(images)[1:3]
        return refine(boxes, codes, likeliest(logits), self.std, size)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[1])


@keras.saving.register_keras_serializable("kmlp")
class Detections(Layer):
    """The best boxes of all classes, less those that repeat one of their class.

    Args:
        std: of the boxes' codes.
        score_threshold: probability above which a box counts.
        nms_threshold: IoU above which the lower of two boxes of a class goes.
        count: detections of an image.

    Shapes: a list of the images, boxes `(N, R, 4)` (those without area are padding),
    codes `(N, R, K or 1, 4)` and, from one stage or more, logits `(N, R, K + 1)`,
    whose mean counts, to a dictionary of `boxes` `(N, count, 4)`, `scores`
    `(N, count)` and `classes` `(N, count)` int32; best first, then zeros of class -1.
    """

    def __init__(self, std, *, score_threshold, nms_threshold, count, **kwargs):
        super().__init__(**kwargs)

    def call(self, inputs):
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
        index, found = nms(boxes, scores, groups, self.nms_threshold, self.count)
        return {
            "boxes": ops.where(found[..., None], rows_of(boxes, index), 0.0),
            "scores": ops.where(found, rows_of(scores, index), 0.0),
            "classes": ops.where(found, index % classes, -1),
        }

    def compute_output_spec(self, inputs):
        shape = (inputs[0].shape[0], self.count)
        return {
            "boxes": keras.KerasTensor((*shape, 4), dtype="float32"),
            "scores": keras.KerasTensor(shape, dtype="float32"),
            "classes": keras.KerasTensor(shape, dtype="int32"),
        }


@keras.saving.register_keras_serializable("kmlp")
class ClassMasks(Layer):
    """Masks of detections: probabilities of the class detected.

    Shapes: a list of the classes `(N, D)` and, from one stage or more, logits
    `(N, D, h, w, K)`, whose probabilities are averaged, to `(N, D, h, w)`; zeros
    where there is no detection.
    """

    def call(self, inputs):
        classes, *logits = inputs
        masks = [ops.sigmoid(masks_of(x, classes)) for x in logits]
        return ops.where(classes[..., None, None] >= 0, sum(masks) / len(masks), 0.0)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[1][:-1])


def masks_of(logits, classes):
    """The class's mask logits of regions: `(N, P, h, w, K)` to `(N, P, h, w)`."""
    chosen = ops.one_hot(classes, logits.shape[-1], dtype=logits.dtype)
    return ops.einsum("nphwk,npk->nphw", logits, chosen)


@keras.saving.register_keras_serializable("kmlp")
class DenseDetections(Layer):
    """The best boxes of all levels, without repetitions.

    Of each level the pairs of anchor and class with the highest scores, of those
    above a threshold; their boxes, clipped to the image; suppression within each
    class over all levels. Geometry and scores are float32 under any policy.

    Args:
        num_classes: number of classes K.
        scales, ratios, strides: of the anchors, as `Anchors` takes them.
        candidates: pairs kept of each level.
        score_threshold: scores up to this are dropped.
        nms_threshold: IoU above which the lower of two boxes of a class goes.
        max_detections: D, of an image.

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

    def build(self, input_shape):
        self.built = True

    def call(self, inputs):
        size = ops.shape(inputs["images"])[1:3]
        anchors = self._anchors.boxes([ops.shape(x)[1:3] for x in inputs["class"]])
        levels = zip(inputs["class"], inputs["box"], anchors)
        found = [self._level(*level, size) for level in levels]
        boxes, scores, classes = (ops.concatenate(x, axis=1) for x in zip(*found))
        index, there = nms(
            boxes, scores, classes, self.nms_threshold, self.max_detections
        )
        boxes = ops.take_along_axis(boxes, index[..., None], axis=1)
        scores = ops.take_along_axis(scores, index, axis=1)
        classes = ops.take_along_axis(classes, index, axis=1)
        return {
            "boxes": ops.where(there[..., None], boxes, 0.0),
            "scores": ops.where(there, scores, 0.0),
            "classes": ops.where(there, classes, -1),
        }

    def _level(self, logits, codes, anchors, size):
        """Candidates: boxes `(N, k, 4)`, scores and classes `(N, k)`."""
        pairs = self._count(logits)
        rows = (ops.shape(logits)[0], pairs)
        scores = ops.sigmoid(ops.reshape(ops.cast(logits, "float32"), rows))
        scores = ops.where(scores > self.score_threshold, scores, -float("inf"))
        count = self.candidates
        if isinstance(pairs, int) and pairs > 0:
            count = min(count, pairs)
        else:
            # The size of the map is not known here: as many empty candidates.
            empty = ops.repeat(
                ops.full_like(scores[:, :1], -float("inf")), count, axis=1
            )
            scores = ops.concatenate([scores, empty], axis=1)
        scores, index = ops.top_k(scores, count)
        index = ops.cast(index, "int32")
        anchor = ops.minimum(index // self.num_classes, ops.shape(anchors)[0] - 1)
        codes = ops.reshape(ops.cast(codes, "float32"), (-1, *ops.shape(anchors)))
        codes = ops.take_along_axis(codes, anchor[..., None], axis=1)
        boxes = decode(ops.take(anchors, anchor, axis=0), codes, size=size)
        return boxes, scores, index % self.num_classes

    @staticmethod
    def _count(logits):
        """Pairs of anchor and class of a map: -1 for `reshape` where unknown."""
        _, height, width, channels = logits.shape
        if height is None or width is None:
            return -1
        return height * width * channels

    def compute_output_spec(self, inputs):
        first = (inputs["images"].shape[0], self.max_detections)
        return {
            "boxes": keras.KerasTensor((*first, 4), "float32"),
            "scores": keras.KerasTensor(first, "float32"),
            "classes": keras.KerasTensor(first, "int32"),
        }
