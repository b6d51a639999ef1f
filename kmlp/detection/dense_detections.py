"""From the maps of a one-stage detector to its detections."""

import keras
from keras import ops

from kmlp.detection.anchors import Anchors
from kmlp.detection.boxes import decode
from kmlp.detection.suppression import nms
from kmlp.layers.layer import Layer


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

    arguments = (
        "num_classes",
        "scales",
        "ratios",
        "strides",
        "candidates",
        "score_threshold",
        "nms_threshold",
        "max_detections",
    )

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
        self.num_classes = num_classes
        self.scales = tuple(scales)
        self.ratios = tuple(ratios)
        self.strides = tuple(strides)
        self.candidates = candidates
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
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
